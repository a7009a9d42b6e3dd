"""Theory that predicts: step sizes, bounds, limits of parallelisation, SDEs, scaling rules and costs of a step."""
