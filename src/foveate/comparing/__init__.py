"""Models side by side on one data set under one budget: trainings that can be resumed, what they gave, and what follows from it."""
