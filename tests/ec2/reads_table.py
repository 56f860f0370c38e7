"""The table of reads.py."""

PAGES = "MaxResults NextToken"
FILTERS = f"Filters.* {PAGES} DryRun"
TEMPLATE = "LaunchTemplateId LaunchTemplateName"
EBS = (
    "DeviceName NoDevice Ebs.SnapshotId Ebs.VolumeSize Ebs.VolumeType Ebs.DeleteOnTermination Ebs.Encrypted Ebs.KmsKeyId Ebs.Iops "
    "Ebs.Throughput"
)
DEVICES = " ".join(f"BlockDeviceMappings.{name}" for name in EBS.split())
CARD = "DeviceIndex SubnetId Groups AssociatePublicIpAddress DeleteOnTermination"
LAUNCH = (
    "ImageId InstanceType KeyName SecurityGroupIds UserData EbsOptimized Monitoring.Enabled InstanceInitiatedShutdownBehavior "
    "DisableApiTermination DisableApiStop IamInstanceProfile.Name IamInstanceProfile.Arn MetadataOptions.HttpTokens "
    "MetadataOptions.HttpPutResponseHopLimit "
    "MetadataOptions.HttpEndpoint MetadataOptions.InstanceMetadataTags Placement.AvailabilityZone TagSpecifications.* "
    "InstanceMarketOptions.MarketType " + DEVICES + " " + " ".join(f"NetworkInterfaces.{name}" for name in CARD.split())
)
SPOT = " ".join(f"InstanceMarketOptions.SpotOptions.{name}" for name in ("SpotInstanceType", "InstanceInterruptionBehavior", "MaxPrice"))
DATA = " ".join(f"LaunchTemplateData.{name}" for name in LAUNCH.split())
TAGS = "TagSpecifications.*"
RULES = "GroupId IpPermissions.* TagSpecifications.* DryRun"
TABLE = {
    "ebs:StartSnapshot": "VolumeSize ParentSnapshotId Tags.* Description ClientToken Encrypted KmsKeyArn Timeout",
    "ebs:PutSnapshotBlock": "SnapshotId BlockIndex DataLength Progress Checksum ChecksumAlgorithm",
    "ebs:CompleteSnapshot": "SnapshotId ChangedBlocksCount Checksum ChecksumAlgorithm ChecksumAggregationMethod",
    "ebs:GetSnapshotBlock": "SnapshotId BlockIndex BlockToken",
    "ebs:ListSnapshotBlocks": f"SnapshotId StartingBlockIndex {PAGES}",
    "ebs:ListChangedBlocks": f"FirstSnapshotId SecondSnapshotId StartingBlockIndex {PAGES}",
    "sts:GetCallerIdentity": "",
    "sts:AssumeRole": "RoleArn RoleSessionName DurationSeconds ExternalId",
    "kms:DescribeKey": "KeyId",
    "kms:GetPublicKey": "KeyId",
    "kms:Sign": "KeyId Message MessageType SigningAlgorithm",
    "servicequotas:GetServiceQuota": "ServiceCode QuotaCode",
    "servicequotas:ListServiceQuotas": f"ServiceCode {PAGES}",
    "servicequotas:ListAWSDefaultServiceQuotas": f"ServiceCode {PAGES}",
    "iam:GetInstanceProfile": "InstanceProfileName",
    "ssm:GetParameter": "Name WithDecryption",
    "ssm:GetParameters": "Names WithDecryption",
    "ssm:PutParameter": "Name Value Type DataType Description Overwrite Tags.* Tier",
    "ssm:DeleteParameter": "Name",
    "ssm:AddTagsToResource": "ResourceType ResourceId Tags.*",
    "ec2:DescribeRegions": f"RegionNames AllRegions {FILTERS}",
    "ec2:DescribeAvailabilityZones": f"ZoneNames {FILTERS}",
    "ec2:DescribeVpcs": f"VpcIds {FILTERS}",
    "ec2:DescribeSubnets": f"SubnetIds {FILTERS}",
    "ec2:DescribeInstanceTypes": f"InstanceTypes {FILTERS}",
    "ec2:DescribeInstanceTypeOfferings": f"LocationType {FILTERS}",
    "ec2:ImportKeyPair": f"KeyName PublicKeyMaterial {TAGS} DryRun",
    "ec2:CreateKeyPair": f"KeyName KeyType KeyFormat {TAGS} DryRun",
    "ec2:DescribeKeyPairs": f"KeyNames KeyPairIds {FILTERS}",
    "ec2:DeleteKeyPair": "KeyName KeyPairId DryRun",
    "ec2:CreateSecurityGroup": f"GroupName Description VpcId {TAGS} DryRun",
    "ec2:AuthorizeSecurityGroupIngress": RULES,
    "ec2:AuthorizeSecurityGroupEgress": RULES,
    "ec2:RevokeSecurityGroupIngress": "GroupId IpPermissions.* SecurityGroupRuleIds DryRun",
    "ec2:RevokeSecurityGroupEgress": "GroupId IpPermissions.* SecurityGroupRuleIds DryRun",
    "ec2:DescribeSecurityGroups": f"GroupIds GroupNames {FILTERS}",
    "ec2:DeleteSecurityGroup": "GroupId GroupName DryRun",
    "ec2:RunInstances": f"{LAUNCH} {SPOT} MinCount MaxCount SubnetId ClientToken PrivateIpAddress DryRun LaunchTemplate.LaunchTemplateId "
    "LaunchTemplate.LaunchTemplateName LaunchTemplate.Version",
    "ec2:DescribeInstances": f"InstanceIds {FILTERS}",
    "ec2:DescribeInstanceStatus": f"InstanceIds IncludeAllInstances {FILTERS}",
    "ec2:DescribeSpotInstanceRequests": f"SpotInstanceRequestIds {FILTERS}",
    "ec2:CancelSpotInstanceRequests": "SpotInstanceRequestIds DryRun",
    "ec2:GetConsoleOutput": "InstanceId Latest DryRun",
    "ec2:StopInstances": "InstanceIds Force DryRun",
    "ec2:StartInstances": "InstanceIds DryRun",
    "ec2:RebootInstances": "InstanceIds DryRun",
    "ec2:TerminateInstances": "InstanceIds DryRun",
    "ec2:ModifyInstanceAttribute": "InstanceId DisableApiTermination.Value DisableApiStop.Value "
    "InstanceInitiatedShutdownBehavior.Value EnaSupport.Value DryRun",
    "ec2:CreateTags": "Resources Tags.* DryRun",
    "ec2:DeleteTags": "Resources Tags.* DryRun",
    "ec2:DescribeTags": FILTERS,
    "ec2:DescribeVolumes": f"VolumeIds {FILTERS}",
    "ec2:DeleteVolume": "VolumeId DryRun",
    "ec2:DescribeNetworkInterfaces": f"NetworkInterfaceIds {FILTERS}",
    "ec2:CreateImage": f"InstanceId Name Description NoReboot {TAGS} DryRun {DEVICES}",
    "ec2:RegisterImage": f"Name Description Architecture RootDeviceName VirtualizationType EnaSupport SriovNetSupport BootMode "
    f"ImdsSupport TpmSupport {TAGS} DryRun {DEVICES}",
    "ec2:CopyImage": f"Name Description SourceImageId SourceRegion ClientToken Encrypted KmsKeyId CopyImageTags {TAGS} DryRun",
    "ec2:DeregisterImage": "ImageId DeleteAssociatedSnapshots DryRun",
    "ec2:DescribeImages": f"ImageIds Owners ExecutableUsers IncludeDeprecated IncludeDisabled {FILTERS}",
    "ec2:DescribeImageAttribute": "ImageId Attribute DryRun",
    "ec2:ModifyImageAttribute": "ImageId Attribute OperationType UserIds UserGroups OrganizationArns OrganizationalUnitArns "
    "LaunchPermission.* ImdsSupport.Value Description.Value DryRun",
    "ec2:EnableImageDeprecation": "ImageId DeprecateAt DryRun",
    "ec2:DisableImageDeprecation": "ImageId DryRun",
    "ec2:EnableImageDeregistrationProtection": "ImageId WithCooldown DryRun",
    "ec2:DisableImageDeregistrationProtection": "ImageId DryRun",
    "ec2:EnableImage": "ImageId DryRun",
    "ec2:DisableImage": "ImageId DryRun",
    "ec2:CreateSnapshot": f"VolumeId Description {TAGS} DryRun",
    "ec2:CopySnapshot": f"SourceRegion SourceSnapshotId Description Encrypted KmsKeyId {TAGS} DryRun",
    "ec2:DescribeSnapshots": f"SnapshotIds OwnerIds {FILTERS}",
    "ec2:DescribeSnapshotAttribute": "SnapshotId Attribute DryRun",
    "ec2:ModifySnapshotAttribute": "SnapshotId Attribute OperationType UserIds GroupNames CreateVolumePermission.* DryRun",
    "ec2:DeleteSnapshot": "SnapshotId DryRun",
    "ec2:GetEbsEncryptionByDefault": "DryRun",
    "ec2:CreateLaunchTemplate": f"LaunchTemplateName VersionDescription ClientToken {TAGS} DryRun {DATA}",
    "ec2:CreateLaunchTemplateVersion": f"{TEMPLATE} SourceVersion VersionDescription ClientToken DryRun {DATA}",
    "ec2:DescribeLaunchTemplates": f"LaunchTemplateIds LaunchTemplateNames {FILTERS}",
    "ec2:DescribeLaunchTemplateVersions": f"{TEMPLATE} Versions MinVersion {PAGES} DryRun",
    "ec2:ModifyLaunchTemplate": f"{TEMPLATE} DefaultVersion ClientToken DryRun",
    "ec2:DeleteLaunchTemplate": f"{TEMPLATE} DryRun",
    "ec2:DeleteLaunchTemplateVersions": f"{TEMPLATE} Versions DryRun",
    "autoscaling:DescribeAutoScalingGroups": "AutoScalingGroupNames Filters.* MaxRecords NextToken",
    "autoscaling:UpdateAutoScalingGroup": "AutoScalingGroupName LaunchTemplate.LaunchTemplateId LaunchTemplate.LaunchTemplateName "
    "LaunchTemplate.Version MinSize MaxSize DesiredCapacity HealthCheckGracePeriod HealthCheckType",
    "autoscaling:StartInstanceRefresh": "AutoScalingGroupName Strategy Preferences.* DesiredConfiguration.LaunchTemplate.LaunchTemplateId "
    "DesiredConfiguration.LaunchTemplate.LaunchTemplateName DesiredConfiguration.LaunchTemplate.Version",
    "autoscaling:DescribeInstanceRefreshes": "AutoScalingGroupName InstanceRefreshIds MaxRecords NextToken",
    "autoscaling:CancelInstanceRefresh": "AutoScalingGroupName",
    "autoscaling:RollbackInstanceRefresh": "AutoScalingGroupName",
    "autoscaling:DescribeAutoScalingInstances": "InstanceIds MaxRecords NextToken",
    "autoscaling:DescribeScalingActivities": "AutoScalingGroupName MaxRecords NextToken",
}
