"""The open inspection station: a UR5, a Basler camera and a learned detector."""
