"""Millions of pictures: `posezoo batch`, on one machine or a Ray cluster.

What is to be done is cut into parts (`plan`), each of which one worker does as a whole (`work`) and puts on the disk in
one step (`parts`), so that a run that was killed goes on where it stopped. Ray hands the parts to the workers (`run`);
nothing else here needs it.
"""
