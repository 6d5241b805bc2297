"""A generator's scores: what samples are made, what they are scored by and compared with."""
