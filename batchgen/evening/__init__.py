"""What a run will take, told in the evening before it: time, disk, cost. And what will go wrong."""
