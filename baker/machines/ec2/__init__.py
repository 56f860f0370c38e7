"""The builder `ec2`: instances, and AMIs made of them. boto3 itself is below baker/aws."""
