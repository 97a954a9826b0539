# syntax=docker/dockerfile:1
# The program in an image with no more than it needs:
#
#   docker build --tag compress .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" compress --recipe recipe.yaml --model llama --output llama-w4a16
#
# Swift's runtime is linked into the program; OpenBLAS, PCRE2, zlib and HDF5 come from the distribution, the same in both stages.

FROM swift:6.2-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends libhdf5-dev libopenblas-dev libpcre2-dev libssl-dev pkg-config zlib1g-dev \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Package.swift ./
# Dependencies before the sources, so that a change of these does not fetch them again.
RUN swift package resolve
COPY . .
RUN swift build --configuration release --static-swift-stdlib --product compress \
  && swift build --configuration release --static-swift-stdlib --product generate-manual \
  && .build/release/generate-manual .build/release/compress --output-directory /tmp \
  && tools/install .build/release/compress /tmp/compress.1 /installed

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends libhdf5-103-1 libopenblas0-pthread libpcre2-8-0 libssl3 zlib1g \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /installed /usr/local
WORKDIR /work
USER nobody
ENTRYPOINT ["compress"]
CMD ["--help"]
