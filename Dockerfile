# syntax=docker/dockerfile:1
# NOT BUILT YET: no container engine ran where this was written, and no release has been made from it. Read it as the plan
# for the image; the first to build it should expect to mend something.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) .

# Keep the version in step with rust-version in Cargo.toml, or above it.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache build-base ca-certificates
WORKDIR /src
COPY . .
# Alpine's own target is musl: a static binary without cross compilation; buildx runs this stage for each platform.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    cargo build --locked --release --package ip-address-controller \
    && strip --strip-all -o /ip-address-controller target/release/ip-address-controller

FROM scratch
ARG VERSION=2.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ip-address-controller" \
      org.opencontainers.image.description="Keeps reserved external IP addresses on healthy Kubernetes nodes" \
      org.opencontainers.image.source="https://github.com/darkbrains/ip-address-controller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# The clouds are called over TLS, with the system's roots.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /ip-address-controller /ip-address-controller
COPY LICENSE /LICENSE
# A number, not a name: runAsNonRoot cannot check a name.
USER 65532:65532
EXPOSE 8080 9999
ENTRYPOINT ["/ip-address-controller"]
CMD ["run"]
