# The operator alone in an empty image: no shell, no package manager, no libraries. It trusts the API
# server's own CA, which Kubernetes mounts into the pod, so the image carries no CA bundle either.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# A statically linked glibc keeps its resolver and allocator and needs no toolchain beyond the image's.
# With --target the flags reach the operator only, not the build scripts and procedural macros.
RUN set -eu; \
    target=$(rustc -vV | sed -n 's/^host: //p'); \
    RUSTFLAGS="-C target-feature=+crt-static" \
      cargo build --release --locked --bin incident-operator --target "$target"; \
    install -D -m 0755 "target/$target/release/incident-operator" /out/incident-operator

# tests/image/check.sh builds everything from here on around a binary of its own.
FROM scratch AS final
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="incident-operator" \
      org.opencontainers.image.description="Makes an incident a Kubernetes resource" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/incident-operator /incident-operator
# Numeric, so that the kubelet can verify runAsNonRoot without a passwd file.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/incident-operator"]
CMD ["run"]
