"""Networks in plain PyTorch. `build` maps an architecture's name to a module; nothing here knows about weights."""
