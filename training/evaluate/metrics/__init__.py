"""What only the evaluation measures: FID, and the segmenters behind Content Consistency."""
