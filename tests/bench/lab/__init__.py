"""The lab: Pillion and its peers, measured in turns on the same machine."""
