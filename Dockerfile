# syntax=docker/dockerfile:1

# Another image with Go, such as a mirror's: --build-arg GO_IMAGE=…
ARG GO_IMAGE=golang:1.26
FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /outboxcdc ./cmd/outboxcdc

# Nothing but the program and the authorities that it trusts.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /outboxcdc /outboxcdc
USER 65532:65532
EXPOSE 9180
ENTRYPOINT ["/outboxcdc"]
CMD ["stream"]
