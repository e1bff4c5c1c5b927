//! The web client, compiled into the binary: each file compressed if that gains anything, all under one version.
//!
//! Browsers take gzip, with TLS and without. For other clients a file is unpacked when it is first requested: a second
//! copy of all files would be a tenth of the binary, and rarely needed.
//!
//! Nothing here touches the file system, so there is no path to traverse. Every file carries the version of the whole
//! bundle as its `ETag`, so that a page and its service worker can tell that they hold files of one version.

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::{HeaderMap, StatusCode};

use super::response::{Response, body, empty};

/// One file of `public/`.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    is_gzip: bool,
    bytes: &'static [u8],
    /// Set at the first request without gzip.
    unpacked: OnceLock<Bytes>,
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Whether there is a file at `path`.
pub(crate) fn exists(path: &str) -> bool {
    find(path).is_some()
}

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Bytes around the compressed data of a gzip file without a name (RFC 1952 2.3).
const GZIP_HEADER: usize = 10;
const GZIP_TRAILER: usize = 8;

impl Asset {
    const fn new(path: &'static str, content_type: &'static str, is_gzip: bool, bytes: &'static [u8]) -> Self {
        Self { path, content_type, is_gzip, bytes, unpacked: OnceLock::new() }
    }

    /// The file without its compression.
    fn plain(&self) -> Bytes {
        if !self.is_gzip {
            return Bytes::from_static(self.bytes);
        }
        let unpack = || {
            let deflated = &self.bytes[GZIP_HEADER..self.bytes.len() - GZIP_TRAILER];
            miniz_oxide::inflate::decompress_to_vec(deflated).expect("compressed when the binary was built").into()
        };
        self.unpacked.get_or_init(unpack).clone()
    }
}

/// `GET` of a file: compressed if the client accepts it, or `304` if the client has it.
pub(crate) fn get(path: &str, headers: &HeaderMap) -> Option<Response> {
    let asset = find(path)?;
    let compressed = asset.is_gzip && headers.get_all(ACCEPT_ENCODING).iter().any(accepts_gzip);
    let etag = if compressed { format!("\"{VERSION}-gzip\"") } else { format!("\"{VERSION}\"") };
    let mut response = if headers.get_all(IF_NONE_MATCH).iter().any(|value| lists(value, &etag)) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let content = if compressed { Bytes::from_static(asset.bytes) } else { asset.plain() };
        let mut response = body(StatusCode::OK, content);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if compressed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(etag).expect("a version is hexadecimal"));
    // Revalidated on every use, almost always with a 304, so that a new version is seen at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Some(response)
}

/// Whether `Accept-Encoding` names `gzip` with a weight over zero (RFC 9110 12.5.3).
pub(crate) fn accepts_gzip(value: &HeaderValue) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let refused = weight.strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Whether `If-None-Match` lists `etag` (RFC 9110 13.1.2: weak comparison).
pub(crate) fn lists(value: &HeaderValue, etag: &str) -> bool {
    value.to_str().is_ok_and(|value| {
        value.split(',').map(str::trim).any(|item| item == "*" || item.trim_start_matches("W/") == etag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_by_name_unless_its_weight_is_zero() {
        let accepts = |value| accepts_gzip(&HeaderValue::from_static(value));
        assert!(accepts("gzip, deflate, br") && accepts("GZIP;q=0.5") && accepts("br;q=0, gzip"));
        assert!(
            !accepts("br") && !accepts("gzip;q=0") && !accepts("gzip;Q=0.000") && !accepts("x-gzip") && !accepts("")
        );
    }

    #[test]
    fn every_file_that_is_compressed_can_be_unpacked() {
        for asset in ASSETS.iter().filter(|asset| asset.is_gzip) {
            assert!(asset.plain().len() > asset.bytes.len(), "{}", asset.path);
        }
    }

    #[test]
    fn only_compiled_in_files_exist() {
        assert!(exists("/"));
        for path in ["", "//", "/../Cargo.toml", "/..%2fCargo.toml", "/index.html/", "/%69ndex.html", "/.", "/app.js\0"]
        {
            assert!(!exists(path), "{path}");
        }
    }
}
