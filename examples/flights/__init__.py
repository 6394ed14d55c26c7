"""The main job: predict late arrivals on the 336,776 flights that left New York in 2013."""
