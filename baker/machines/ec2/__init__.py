"""The builder `ec2`: runs instances and creates AMIs from them. baker/aws wraps boto3."""
