package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/twmb/franz-go/pkg/sasl"
	kafkaaws "github.com/twmb/franz-go/pkg/sasl/aws"

	"github.com/outboxcdc/outboxcdc/pipeline/fault"
)

// completeIAM judges the settings. Amazon's brokers take such logins over TLS alone.
func (s *kafkaSecurity) completeIAM() error {
	switch {
	case !s.tls:
		return errSASL("AWS_MSK_IAM goes over TLS alone", "add security.protocol=SASL_SSL")
	case s.username != "" || s.password != "":
		return errSASL("AWS_MSK_IAM takes neither sasl.username nor sasl.password",
			"leave them out: keys come from where AWS' own tools find them, such as the environment, a service account or ~/.aws")
	default:
		return nil
	}
}

func (s *kafkaSecurity) iamMechanism() sasl.Mechanism {
	keys := &iamKeys{options: s.jaas}
	keys.load = sync.OnceValues(keys.provider)
	return kafkaaws.ManagedStreamingIAM(keys.take)
}

// iamKeys are found as AWS' own tools find them: in the environment, by the token of a
// Kubernetes service account, in ~/.aws, from the container's or the machine's metadata.
// The SDK renews those that expire. The options are those of Amazon's login module for
// Java: awsProfileName, awsRoleArn, awsRoleSessionName, awsStsRegion.
type iamKeys struct {
	options map[string]string
	load    func() (aws.CredentialsProvider, error)
}

func (k *iamKeys) provider() (aws.CredentialsProvider, error) {
	ctx := context.Background() // the SDK reads environment and files here, and asks nobody
	var options []func(*config.LoadOptions) error
	if profile := k.options["awsProfileName"]; profile != "" {
		options = append(options, config.WithSharedConfigProfile(profile))
	}
	if region := k.options["awsStsRegion"]; region != "" {
		options = append(options, config.WithRegion(region))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil || k.options["awsRoleArn"] == "" {
		return c.Credentials, err
	}
	role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(c), k.options["awsRoleArn"], func(o *stscreds.AssumeRoleOptions) {
		if name := k.options["awsRoleSessionName"]; name != "" {
			o.RoleSessionName = name
		}
	})
	return aws.NewCredentialsCache(role), nil
}

func (k *iamKeys) take(ctx context.Context) (kafkaaws.Auth, error) {
	provider, err := k.load()
	var keys aws.Credentials
	if err == nil {
		keys, err = provider.Retrieve(ctx)
	}
	if err != nil {
		return kafkaaws.Auth{}, iamFault(err)
	}
	return kafkaaws.Auth{AccessKey: keys.AccessKeyID, SecretKey: keys.SecretAccessKey, SessionToken: keys.SessionToken, UserAgent: defaultClientID}, nil
}

// iamFault is transient, and for the client like a lost connection, unless AWS has
// answered that it is we who are wrong: what gives out keys may be away.
func iamFault(err error) error {
	const advice = "check that AWS' own tools find keys here: the environment, the service account's role, ~/.aws or the machine's role"
	text := errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	answer, answered := errors.AsType[smithy.APIError](err)
	if answered && answer.ErrorFault() == smithy.FaultClient {
		return fault.NewOperator(fmt.Errorf("find AWS' keys for kafka: %w", text), advice)
	}
	return &fault.Error{
		Class: fault.Transient, Advice: advice,
		Err: fmt.Errorf("find AWS' keys for kafka: %w", &net.OpError{Op: "ask", Net: "tcp", Err: text}),
	}
}
