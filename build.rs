//! Compiles the web client in: every file of `public/`, compressed where that gains anything, and a module that names
//! them all. A folder `NAME.css` is one file for the browser, in parts for those who read it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest as _, Sha256};

/// A file that compresses to more than this share of itself is served as it is.
const WORTHWHILE_PERCENT: usize = 90;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=public");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut files = Vec::new();
    collect(Path::new("public"), "", &mut files)?;
    files.sort();

    let mut digest = Sha256::new();
    for (path, content) in &files {
        digest.update(path.as_bytes());
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    let version: String = digest.finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all");
        hex
    });
    let names: Vec<_> = files.iter().map(|(path, _)| path.as_str()).filter(|path| *path != "/sw.js").collect();
    let module = format!("export const VERSION = \"{version}\";\nexport const FILES = {names:?};\n");
    files.push(("/version.js".into(), module.into_bytes()));

    let mut table = format!("const VERSION: &str = \"{version}\";\nstatic ASSETS: [Asset; {}] = [\n", files.len());
    for (at, (path, content)) in files.iter().enumerate() {
        let compressed = gzip(content)?;
        let is_gzip = compressed.len() * 100 < content.len() * WORTHWHILE_PERCENT;
        let file = out.join(at.to_string());
        fs::write(&file, if is_gzip { &compressed } else { content })?;
        let (file, content_type) = (file.display().to_string(), content_type(path));
        writeln!(table, "    Asset::new({path:?}, {content_type:?}, {is_gzip}, include_bytes!({file:?})),")
            .expect("a string takes all");
    }
    table.push_str("];\n");
    fs::write(out.join("assets.rs"), table)
}

/// The files below `folder`, by the path at which they are served.
fn collect(folder: &Path, at: &str, files: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidFilename)?;
        if entry.file_type()?.is_dir() {
            let path = format!("{at}/{name}");
            if entry.path().extension().is_some_and(|extension| extension == "css") {
                files.push((path, joined(&entry.path())?));
            } else {
                collect(&entry.path(), &path, files)?;
            }
        } else {
            let path = if at.is_empty() && name == "index.html" { "/".into() } else { format!("{at}/{name}") };
            files.push((path, fs::read(entry.path())?));
        }
    }
    Ok(())
}

/// The files of `folder` in the order of their names, a blank line between them.
fn joined(folder: &Path) -> io::Result<Vec<u8>> {
    let mut parts = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    parts.sort();
    let parts = parts.iter().map(fs::read).collect::<io::Result<Vec<_>>>()?;
    Ok(parts.join(&b'\n'))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webmanifest" => "application/manifest+json",
        other => panic!("public/ has a .{other} file, whose content type is not known"),
    }
}

fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}
