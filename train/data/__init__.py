"""What is learned from: data sets, decoded clips, a synthetic corpus."""
