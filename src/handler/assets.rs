//! The web client, compiled into the binary: each file as it is and compressed, under one version.
//!
//! Nothing here touches the file system, so there is no path to traverse. Every file carries the version of the whole
//! bundle as its `ETag`, so that a page and its service worker can tell that they hold files of one version.

use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use hyper::{HeaderMap, StatusCode};

use crate::response::{Response, body, empty};

/// One file of `public/`.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    /// Empty where compressing gains nothing.
    brotli: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Whether there is a file at `path`.
pub(crate) fn exists(path: &str) -> bool {
    find(path).is_some()
}

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// `GET` of a file: compressed as the client takes it, or `304` if the client has it.
pub(crate) fn get(path: &str, headers: &HeaderMap) -> Option<Response> {
    let asset = find(path)?;
    let accepts = |coding| headers.get_all(ACCEPT_ENCODING).iter().any(|value| accepts(value, coding));
    let (content, coding) = if !asset.brotli.is_empty() && accepts("br") {
        (asset.brotli, Some("br"))
    } else if !asset.gzip.is_empty() && accepts("gzip") {
        (asset.gzip, Some("gzip"))
    } else {
        (asset.plain, None)
    };
    let etag = coding.map_or_else(|| format!("\"{VERSION}\""), |coding| format!("\"{VERSION}-{coding}\""));
    let mut response = if headers.get_all(IF_NONE_MATCH).iter().any(|value| lists(value, &etag)) {
        empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = body(StatusCode::OK, content.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if let Some(coding) = coding {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::try_from(etag).expect("a version is hexadecimal"));
    // Asked for each time, answered 304 almost each time: a new version is seen at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Some(response)
}

/// Whether `Accept-Encoding` names `coding` with a weight over zero (RFC 9110 12.5.3).
pub(crate) fn accepts(value: &HeaderValue, coding: &str) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value.split(',').any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let refused = weight.strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case(coding) && !refused
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
    fn a_coding_is_accepted_by_name_unless_its_weight_is_zero() {
        let accepts = |value: &'static str, coding| accepts(&HeaderValue::from_static(value), coding);
        assert!(accepts("gzip, deflate, br", "br") && accepts("GZIP;q=0.5", "gzip"));
        assert!(
            !accepts("gzip", "br") && !accepts("br;q=0", "br") && !accepts("br;Q=0.000", "br") && !accepts("", "br")
        );
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
