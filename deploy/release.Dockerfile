# syntax=docker/dockerfile:1

# The image of a release: goreleaser gives the program, built, and nothing of the source;
# the rest is as in ../Dockerfile.
ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build

# Nothing but the program and the authorities that it trusts.
FROM scratch
ARG TARGETPLATFORM
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY ${TARGETPLATFORM}/outboxcdc /outboxcdc
USER 65532:65532
EXPOSE 9180
ENTRYPOINT ["/outboxcdc"]
CMD ["stream"]
