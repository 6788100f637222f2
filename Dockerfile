# Two images, `wharf` (the command) and `wharf-host` (the server alone), in two
# ways: from the source, or from static binaries with no base at all.
#
#   docker build --target wharf -t wharf .
#   docker build --target wharf-binary -t wharf -f Dockerfile PREFIX
#
# PREFIX is a folder that `make install PREFIX=…` filled: then no base image is
# fetched, for the stages that need one are not built. That image has no CA
# certificates: to push or pull, mount the host's at /etc/ssl/certs.

ARG BASE=docker.io/library/rust:1.95-bookworm

FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libseccomp-dev make pkg-config python3-venv
# For the server of the other architecture's images.
RUN rustup target add aarch64-unknown-linux-gnu x86_64-unknown-linux-gnu
WORKDIR /source
COPY . .
RUN make build install-only PREFIX=/out ARCHES="amd64 arm64"

FROM scratch AS wharf
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bin/ /bin/
COPY --from=build /out/libexec/ /libexec/
ENV HOME=/home
WORKDIR /work
ENTRYPOINT ["/bin/wharf"]

FROM scratch AS wharf-host
COPY --from=build /out/libexec/wharf/wharf-host /wharf-host
USER 65532:65532
EXPOSE 8080/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/wharf-host"]

FROM scratch AS wharf-binary
COPY bin/ /bin/
COPY libexec/ /libexec/
ENV HOME=/home
WORKDIR /work
ENTRYPOINT ["/bin/wharf"]

FROM scratch AS wharf-host-binary
COPY libexec/wharf/wharf-host /wharf-host
USER 65532:65532
EXPOSE 8080/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["/wharf-host"]
