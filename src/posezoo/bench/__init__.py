"""How fast networks are, alone and in the pipeline: measured in turns, told with the machine, drawn against AP."""
