# An image that holds one file. Build the static binary first:
#
#   RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --features push --target x86_64-unknown-linux-gnu
#   docker build -t chinwag .
#   docker run -p 8080:8080 -v chinwag:/data chinwag
FROM scratch
ARG BINARY=target/x86_64-unknown-linux-gnu/release/chinwag
COPY ${BINARY} /chinwag
# A number, since there is no /etc/passwd here. The copied file is what makes the directory, and makes it the user's.
COPY --chown=65532:65532 LICENSE-MIT LICENSE-APACHE /data/
USER 65532:65532
WORKDIR /data
VOLUME /data
ENV CHINWAG_LISTEN=0.0.0.0:8080 CHINWAG_DB=/data/chinwag.db
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/chinwag", "health"]
ENTRYPOINT ["/chinwag"]
