# syntax=docker/dockerfile:1
# Two images from nothing but a static binary: the operator (the last stage), and the simulator that the chart runs with
# `simulator.enabled`. `make image` builds both stages with buildah, from binaries that cargo built for musl on the same
# machine; in their place, where a base image can be pulled (not run by us yet):
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION=$(git rev-parse HEAD) --tag NAME --push .

# Keep the version in step with rust-version in Cargo.toml, or above it.
FROM rust:1.95-alpine AS build
# Set by buildx for each platform; a stage that does not ask for it reads nothing.
ARG TARGETARCH
RUN apk add --no-cache build-base ca-certificates
WORKDIR /src
COPY . .
# Alpine's own target is musl: a static binary without cross compilation; buildx runs this stage for each platform. jemalloc runs
# only where pages are no larger than it was built for, and arm64 has kernels with 64 KiB.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=target-$TARGETARCH \
    if [ "$TARGETARCH" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --locked --release --workspace --bin ip-address-controller --bin simulator \
    && cp target/release/ip-address-controller target/release/simulator /

# What both images have in common.
FROM scratch AS base
ARG VERSION=2.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.source="https://github.com/darkbrains/ip-address-controller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY LICENSE /LICENSE
# A number, not a name: runAsNonRoot cannot check a name.
USER 65532:65532

FROM base AS simulator
LABEL org.opencontainers.image.title="ip-address-controller-simulator" \
      org.opencontainers.image.description="Plays a cloud and a few nodes of it, to try ip-address-controller with"
COPY --from=build /simulator /simulator
EXPOSE 8090
ENTRYPOINT ["/simulator"]

FROM base AS operator
LABEL org.opencontainers.image.title="ip-address-controller" \
      org.opencontainers.image.description="Keeps reserved external IP addresses on healthy Kubernetes nodes"
# The clouds are called over TLS, with the system's roots.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /ip-address-controller /ip-address-controller
EXPOSE 8080 9999
ENTRYPOINT ["/ip-address-controller"]
CMD ["run"]
