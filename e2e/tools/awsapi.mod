// AWS's own description of EC2 and STS (models/apis/{ec2,sts}), which the simulator's tests hold it against.
// No tool is built from this.
module tools/awsapi

go 1.26.0

require github.com/aws/aws-sdk-go v1.55.8
