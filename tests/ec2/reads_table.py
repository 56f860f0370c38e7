"""The table of reads.py."""

FILTERS = "Filters.* MaxResults NextToken DryRun"
TABLE = {
    "ebs:StartSnapshot": "VolumeSize ParentSnapshotId Tags.* Description ClientToken Encrypted KmsKeyArn Timeout",
    "ebs:PutSnapshotBlock": "SnapshotId BlockIndex DataLength Progress Checksum ChecksumAlgorithm",
    "ebs:CompleteSnapshot": "SnapshotId ChangedBlocksCount Checksum ChecksumAlgorithm ChecksumAggregationMethod",
    "ebs:GetSnapshotBlock": "SnapshotId BlockIndex BlockToken",
    "ebs:ListSnapshotBlocks": "SnapshotId NextToken MaxResults StartingBlockIndex",
    "ebs:ListChangedBlocks": "FirstSnapshotId SecondSnapshotId NextToken MaxResults StartingBlockIndex",
    "sts:GetCallerIdentity": "",
    "ec2:DescribeSnapshots": f"SnapshotIds OwnerIds RestorableByUserIds {FILTERS}",
    "ec2:DeleteSnapshot": "SnapshotId DryRun",
}
