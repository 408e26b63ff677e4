"""How the plain tables write times. Owns nothing else."""
