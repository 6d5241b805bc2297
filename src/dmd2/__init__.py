"""`dmd2`: distribution matching distillation of diffusion models into one to four steps."""
