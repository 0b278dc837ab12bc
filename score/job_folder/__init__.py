"""The folder of a long job, which goes on where it stopped: what it is, and which rows are done."""
