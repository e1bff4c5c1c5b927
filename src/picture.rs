//! Pictures: their type and size by their own bytes, and the file without the metadata of cameras and programs.
//!
//! Nothing is decoded. A file is walked by its markers or chunks; those that say where and with what a picture was
//! taken (EXIF, XMP, IPTC, comments, texts) are left out, and so is everything after its end. Of a JPEG's EXIF the
//! orientation stays, since without it a portrait lies on its side. A file whose structure is broken is refused.

use crate::limits::IMAGE_MAX_PIXELS;

/// A picture that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Its media type, without `image/`.
    pub(crate) subtype: &'static str,
    /// Pixels.
    pub(crate) width: u32,
    /// Pixels.
    pub(crate) height: u32,
    /// The file, without what was left out.
    pub(crate) bytes: Vec<u8>,
}

/// Why a file is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PictureError {
    /// It is not a PNG, JPEG, WebP or GIF, or is broken.
    #[error("this is not a PNG, JPEG, WebP or GIF picture")]
    NotAPicture,
    /// It has more than [`IMAGE_MAX_PIXELS`] pixels on a side.
    #[error("a picture has at most {IMAGE_MAX_PIXELS} pixels on a side")]
    TooLarge,
}

impl Picture {
    /// Reads a file from outside.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, PictureError> {
        let parse = if file.starts_with(PNG_SIGNATURE) {
            png
        } else if file.starts_with(&[0xFF, 0xD8, 0xFF]) {
            jpeg
        } else if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
            webp
        } else if file.starts_with(b"GIF87a") || file.starts_with(b"GIF89a") {
            gif
        } else {
            return Err(PictureError::NotAPicture);
        };
        let picture = parse(file).ok_or(PictureError::NotAPicture)?;
        match (picture.width, picture.height) {
            (1..=IMAGE_MAX_PIXELS, 1..=IMAGE_MAX_PIXELS) => Ok(picture),
            (0, _) | (_, 0) => Err(PictureError::NotAPicture),
            _ => Err(PictureError::TooLarge),
        }
    }
}

/// Reads what is left of a file from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

fn size(bytes: u32) -> Option<usize> {
    usize::try_from(bytes).ok()
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The ancillary chunks that change how a picture looks; all others of that kind are left out (PNG 11.3).
const PNG_KEPT: [&[u8]; 11] =
    [b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"bKGD", b"acTL", b"fcTL", b"fdAT"];

/// A chunk is a length, a type, data and a checksum (PNG 5.3).
fn png(file: &[u8]) -> Option<Picture> {
    let mut reader = Reader(file.get(PNG_SIGNATURE.len()..)?);
    let (mut bytes, mut dimensions) = (PNG_SIGNATURE.to_vec(), None);
    loop {
        let chunk = reader.0;
        let length = size(u32::from_be_bytes(reader.array()?))?;
        let kind = reader.take(4)?;
        let data = reader.take(length)?;
        reader.take(4)?;
        if dimensions.is_none() {
            // The header comes first, and once (PNG 11.2.1).
            let mut header = Reader(data).0.get(..8).filter(|_| kind == b"IHDR").map(Reader)?;
            dimensions = Some((u32::from_be_bytes(header.array()?), u32::from_be_bytes(header.array()?)));
        }
        // A lower-case first letter says that a decoder may skip the chunk (PNG 5.4).
        if kind[0].is_ascii_uppercase() || PNG_KEPT.contains(&kind) {
            bytes.extend_from_slice(chunk.get(..12 + length)?);
        }
        if kind == b"IEND" {
            let (width, height) = dimensions?;
            return Some(Picture { subtype: "png", width, height, bytes });
        }
    }
}

/// A file is segments, each after a marker, up to the first scan, then entropy-coded data, in which 0xFF begins a
/// marker unless a zero follows (T.81 B.1).
fn jpeg(file: &[u8]) -> Option<Picture> {
    let mut reader = Reader(file.get(2..)?);
    let (mut bytes, mut dimensions, mut orientation) = (vec![0xFF, 0xD8], None, None);
    loop {
        if reader.byte()? != 0xFF {
            return None;
        }
        let mut marker = reader.byte()?;
        // Any number of fill bytes may stand before a marker (T.81 B.1.1.2).
        while marker == 0xFF {
            marker = reader.byte()?;
        }
        let length = usize::from(u16::from_be_bytes(reader.array()?)).checked_sub(2)?;
        let data = reader.take(length)?;
        match marker {
            // A frame's header; C4, C8 and CC are tables (T.81 B.2.2).
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let mut frame = Reader(data.get(1..5)?);
                let (height, width) = (u16::from_be_bytes(frame.array()?), u16::from_be_bytes(frame.array()?));
                dimensions = Some((u32::from(width), u32::from(height)));
            }
            0xE1 => orientation = orientation.or_else(|| exif_orientation(data)),
            0x01 | 0xD0..=0xD9 => return None,
            _ => {}
        }
        // APP0 (JFIF), a colour profile in APP2 and APP14 (Adobe's colour transform) change how it looks; the other
        // application segments and the comments do not.
        let is_profile = marker == 0xE2 && data.starts_with(b"ICC_PROFILE\0");
        let is_kept = is_profile || !matches!(marker, 0xE0..=0xEF | 0xFE) || matches!(marker, 0xE0 | 0xEE);
        if is_kept {
            put_segment(&mut bytes, marker, data)?;
        }
        if marker == 0xDA {
            let (width, height) = dimensions?;
            bytes.extend_from_slice(&reader.0[..scans_end(reader.0)?]);
            if let Some(orientation) = orientation {
                put_orientation(&mut bytes, orientation);
            }
            return Some(Picture { subtype: "jpeg", width, height, bytes });
        }
    }
}

fn put_segment(bytes: &mut Vec<u8>, marker: u8, data: &[u8]) -> Option<()> {
    bytes.extend_from_slice(&[0xFF, marker]);
    bytes.extend_from_slice(&u16::try_from(data.len() + 2).ok()?.to_be_bytes());
    bytes.extend_from_slice(data);
    Some(())
}

/// The end of a picture from its first scan on: after the end marker, beyond which a phone may have put a film.
fn scans_end(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += data.get(at..)?.iter().position(|byte| *byte == 0xFF)?;
        match *data.get(at + 1)? {
            // A byte of data, a restart, or a fill byte.
            0x00 | 0xD0..=0xD7 => at += 2,
            0xFF => at += 1,
            0xD9 => return Some(at + 2),
            // Tables and the header of the next scan. A comment here is rare, and left out by refusing it.
            0xC4 | 0xDA | 0xDB | 0xDC | 0xDD | 0xCC => {
                let length = data.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes(length.try_into().ok()?));
            }
            _ => return None,
        }
    }
}

/// The orientation in an EXIF segment, if it is one of the eight (Exif 4.6.4, tag 0x0112).
fn exif_orientation(data: &[u8]) -> Option<u8> {
    let tiff = data.strip_prefix(b"Exif\0\0")?;
    let is_big = match tiff.get(..4)? {
        b"MM\0*" => true,
        b"II*\0" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let offset: [u8; 4] = tiff.get(4..8)?.try_into().ok()?;
    let first = size(if is_big { u32::from_be_bytes(offset) } else { u32::from_le_bytes(offset) })?;
    let count = usize::from(u16_at(first)?);
    let entry = (0..count).map(|entry| first + 2 + 12 * entry).find(|at| u16_at(*at) == Some(0x0112))?;
    u8::try_from(u16_at(entry + 8)?).ok().filter(|orientation| (2..=8).contains(orientation))
}

/// Inserts an EXIF segment with only the orientation after the first marker.
fn put_orientation(bytes: &mut Vec<u8>, orientation: u8) {
    let mut segment = b"\xFF\xE1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    segment.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    bytes.splice(2..2, segment);
}

/// Bits of an extended header that are cleared: an animation stays, EXIF and XMP do not.
const WEBP_EXIF_AND_XMP: u8 = 0b0000_1100;

/// A chunk is a name, a length and data, padded to an even length (RFC 9649 2.3).
fn webp(file: &[u8]) -> Option<Picture> {
    let mut reader = Reader(file.get(4..)?);
    let length = size(u32::from_le_bytes(reader.array()?))?;
    let mut reader = Reader(reader.0.get(4..length)?);
    let (mut bytes, mut dimensions) = (b"RIFF\0\0\0\0WEBP".to_vec(), None);
    while !reader.0.is_empty() {
        let chunk = reader.0;
        let name = reader.take(4)?;
        let length = size(u32::from_le_bytes(reader.array()?))?;
        let data = reader.take(length)?;
        let padding = length % 2;
        reader.take(padding.min(reader.0.len()))?;
        if !matches!(name, b"VP8X" | b"VP8 " | b"VP8L" | b"ICCP" | b"ALPH" | b"ANIM" | b"ANMF") {
            continue;
        }
        let start = bytes.len();
        bytes.extend_from_slice(chunk.get(..8 + length)?);
        bytes.resize(bytes.len() + padding, 0);
        let found = match name {
            b"VP8X" => {
                *bytes.get_mut(start + 8)? &= !WEBP_EXIF_AND_XMP;
                let side = |at: usize| {
                    Some(u32::from_le_bytes([*data.get(at)?, *data.get(at + 1)?, *data.get(at + 2)?, 0]) + 1)
                };
                Some((side(4)?, side(7)?))
            }
            b"VP8 " => {
                let side =
                    |at: usize| Some(u32::from(u16::from_le_bytes([*data.get(at)?, *data.get(at + 1)?]) & 0x3FFF));
                data.get(3..6).filter(|start| *start == [0x9D, 0x01, 0x2A])?;
                Some((side(6)?, side(8)?))
            }
            b"VP8L" => {
                data.first().filter(|signature| **signature == 0x2F)?;
                let bits = u32::from_le_bytes(data.get(1..5)?.try_into().ok()?);
                Some(((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1))
            }
            _ => None,
        };
        dimensions = dimensions.or(found);
    }
    let (width, height) = dimensions?;
    let length = u32::try_from(bytes.len() - 8).ok()?;
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    Some(Picture { subtype: "webp", width, height, bytes })
}

/// A screen, then blocks: pictures, and extensions, of which those that repeat and time an animation are kept (`GIF89a`
/// 15 to 26).
fn gif(file: &[u8]) -> Option<Picture> {
    let screen: [u8; 7] = file.get(6..13)?.try_into().ok()?;
    let (width, height) = (u16::from_le_bytes([screen[0], screen[1]]), u16::from_le_bytes([screen[2], screen[3]]));
    let mut reader = Reader(&file[13..]);
    let mut bytes = file[..13].to_vec();
    bytes.extend_from_slice(reader.take(colours(screen[4]))?);
    loop {
        let block = reader.0;
        match reader.byte()? {
            0x21 => {
                let label = reader.byte()?;
                let is_loop = label == 0xFF && reader.0.starts_with(b"\x0BNETSCAPE2.0");
                skip_blocks(&mut reader)?;
                if label == 0xF9 || is_loop {
                    bytes.extend_from_slice(&block[..block.len() - reader.0.len()]);
                }
            }
            0x2C => {
                let flags = reader.take(9)?[8];
                reader.take(colours(flags) + 1)?;
                skip_blocks(&mut reader)?;
                bytes.extend_from_slice(&block[..block.len() - reader.0.len()]);
            }
            0x3B => {
                bytes.push(0x3B);
                return Some(Picture { subtype: "gif", width: width.into(), height: height.into(), bytes });
            }
            _ => return None,
        }
    }
}

/// Bytes of a table of colours, by the flags that say whether it exists.
fn colours(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 0x07) + 1) }
}

fn skip_blocks(reader: &mut Reader<'_>) -> Option<()> {
    while let length @ 1.. = usize::from(reader.byte()?) {
        reader.take(length)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn png_chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
        [&u32::try_from(data.len()).unwrap().to_be_bytes(), kind, data, b"\0\0\0\0"].concat()
    }

    fn png_of(width: u32, height: u32) -> Vec<u8> {
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
        let chunks = [
            png_chunk(b"IHDR", &header),
            png_chunk(b"tEXt", b"Author\0SECRET"),
            png_chunk(b"eXIf", b"SECRET"),
            png_chunk(b"IDAT", b"pixels"),
            png_chunk(b"IEND", b""),
            b"SECRET behind the end".to_vec(),
        ];
        [PNG_SIGNATURE.to_vec(), chunks.concat()].concat()
    }

    fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_segment(&mut bytes, marker, data).unwrap();
        bytes
    }

    fn exif(orientation: u8) -> Vec<u8> {
        // Two entries, little-endian: something else, then the orientation.
        let mut tiff =
            b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0F\x01\x02\0\x06\0\0\0\0\0\0\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        tiff.extend_from_slice(&[orientation, 0, 0, 0]);
        tiff.extend_from_slice(b"\0\0\0\0SECRET");
        tiff
    }

    fn jpeg_of(orientation: u8) -> Vec<u8> {
        let frame = [8, 0, 2, 0, 3, 1, 1, 0x11, 0];
        [
            vec![0xFF, 0xD8],
            segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            segment(0xE1, &exif(orientation)),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0SECRET"),
            segment(0xE2, b"ICC_PROFILE\0\x01\x01sRGB"),
            segment(0xE2, b"MPF\0SECRET"),
            segment(0xED, b"Photoshop 3.0\0SECRET"),
            segment(0xFE, b"SECRET"),
            segment(0xC0, &frame),
            segment(0xDA, &[1, 1, 0, 0, 63, 0]),
            // Longer than all that comes after it.
            [&[b'd'; 240][..], b"\xFF\0more\xFF\xFF\xD0more"].concat(),
            // A table for the next scan, with what would otherwise end the picture, and that scan. It too is longer than
            // all that comes after it, so that its own end alone leads there.
            segment(0xC4, &[&b"\x10\xFF\xD9\xFF\xFE"[..], &[0; 64]].concat()),
            segment(0xDA, &[1, 1, 0, 1, 63, 0]),
            b"data\xFF\xD9SECRET".to_vec(),
        ]
        .concat()
    }

    fn webp_of() -> Vec<u8> {
        let chunk = |name: &[u8], data: &[u8]| {
            let padding: &[u8] = if data.len() % 2 == 1 { b"\0" } else { b"" };
            [name, &u32::try_from(data.len()).unwrap().to_le_bytes(), data, padding].concat()
        };
        let chunks = [
            chunk(b"VP8X", &[0b0000_1100, 0, 0, 0, 6, 0, 0, 4, 0, 0]),
            chunk(b"ICCP", b"sRGB!"),
            chunk(b"VP8L", &[0x2F, 6, 0, 1, 0, 0]),
            chunk(b"EXIF", b"SECRET!"),
            chunk(b"XMP ", b"SECRET"),
        ]
        .concat();
        let length = u32::try_from(chunks.len() + 4).unwrap();
        [b"RIFF", &length.to_le_bytes()[..], b"WEBP", &chunks, b"SECRET"].concat()
    }

    fn webp_of_one(chunk: &[u8], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [b"RIFF", &(length + 12).to_le_bytes()[..], b"WEBP", chunk, &length.to_le_bytes(), data].concat()
    }

    fn gif_of() -> Vec<u8> {
        let screen = b"GIF89a\x05\0\x04\0\x80\0\0\0\0\0\xFF\xFF\xFF";
        let comment = b"\x21\xFE\x06SECRET\0";
        let looping = b"\x21\xFF\x0BNETSCAPE2.0\x03\x01\0\0\0";
        let xmp = b"\x21\xFF\x0BXMP DataXMP\x06SECRET\0";
        let pause = b"\x21\xF9\x04\0\x32\0\0\0";
        let picture = b"\x2C\0\0\0\0\x05\0\x04\0\0\x02\x02L\x01\0";
        [&screen[..], comment, looping, xmp, pause, picture, b"\x3BSECRET"].concat()
    }

    fn has_secret(picture: &Picture) -> bool {
        picture.bytes.windows(6).any(|window| window == b"SECRET")
    }

    #[test]
    fn a_picture_is_known_by_its_own_bytes_and_stripped_of_what_was_written_beside_it() {
        let files = [
            (png_of(7, 5), "png", 7, 5),
            (jpeg_of(6), "jpeg", 3, 2),
            (webp_of(), "webp", 7, 5),
            (gif_of(), "gif", 5, 4),
        ];
        for (file, subtype, width, height) in files {
            assert!(file.windows(6).any(|window| window == b"SECRET"));
            let picture = Picture::parse(&file).unwrap_or_else(|error| panic!("{subtype}: {error}"));
            assert_eq!((picture.subtype, picture.width, picture.height), (subtype, width, height));
            assert!(!has_secret(&picture), "{subtype}");
            let announces_more = subtype == "webp" && picture.bytes[20] & WEBP_EXIF_AND_XMP != 0;
            assert!(!announces_more, "what is gone is not announced");
            assert_eq!(Picture::parse(&picture.bytes), Ok(picture), "what is stored is a picture, and stays as it is");
        }
    }

    #[test]
    fn the_orientation_of_a_jpeg_stays() {
        for orientation in 2..=8 {
            let picture = Picture::parse(&jpeg_of(orientation)).unwrap();
            let stored = picture.bytes.windows(6).position(|window| window == b"Exif\0\0").unwrap();
            assert_eq!(exif_orientation(&picture.bytes[stored..]), Some(orientation));
        }
        for upright in [0, 1, 9] {
            assert!(!Picture::parse(&jpeg_of(upright)).unwrap().bytes.windows(4).any(|window| window == b"Exif"));
        }
    }

    #[test]
    fn a_jpeg_in_whose_headers_something_stands_that_has_no_length_is_no_picture() {
        for marker in [0x01, 0xD0, 0xD8, 0xD9] {
            let mut file = jpeg_of(6);
            file.splice(2..2, segment(marker, b"length"));
            assert_eq!(Picture::parse(&file), Err(PictureError::NotAPicture), "{marker:#x}");
        }
    }

    #[test]
    fn a_table_of_a_jpeg_is_not_taken_for_the_header_of_its_frame() {
        for marker in [0xC4, 0xC8, 0xCC] {
            let mut file = jpeg_of(1);
            let scan = file.windows(2).position(|two| two == [0xFF, 0xDA]).unwrap();
            file.splice(scan..scan, segment(marker, &[0; 17]));
            let picture = Picture::parse(&file).unwrap();
            assert_eq!((picture.width, picture.height), (3, 2), "{marker:#x}");
        }
    }

    #[test]
    fn what_is_a_webp_only_in_part_of_its_signature_is_no_picture() {
        for (at, other) in [(0, b"RIFX"), (8, b"WAVE")] {
            let mut file = webp_of();
            file[at..at + 4].copy_from_slice(other);
            assert_eq!(Picture::parse(&file), Err(PictureError::NotAPicture), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn a_gif_goes_on_to_move() {
        let picture = Picture::parse(&gif_of()).unwrap();
        for part in [&b"\x21\xFF\x0BNETSCAPE2.0\x03\x01\0\0\0"[..], b"\x21\xF9\x04\0\x32\0\0\0"] {
            assert!(picture.bytes.windows(part.len()).any(|window| window == part), "{part:?}");
        }
    }

    #[test]
    fn a_colour_profile_stays() {
        for file in [jpeg_of(1), webp_of()] {
            let picture = Picture::parse(&file).unwrap();
            assert!(picture.bytes.windows(4).any(|window| window == b"sRGB"), "{}", picture.subtype);
        }
    }

    #[test]
    fn a_picture_has_at_most_so_many_pixels_on_a_side() {
        assert!(Picture::parse(&png_of(IMAGE_MAX_PIXELS, 1)).is_ok());
        assert_eq!(Picture::parse(&png_of(IMAGE_MAX_PIXELS + 1, 1)), Err(PictureError::TooLarge));
        assert_eq!(Picture::parse(&png_of(1, u32::MAX)), Err(PictureError::TooLarge));
        assert_eq!(Picture::parse(&png_of(0, 1)), Err(PictureError::NotAPicture));
    }

    #[test]
    fn a_webp_of_either_kind_says_itself_how_large_it_is() {
        // Each side in 14 bits below two that scale it (RFC 6386 9.1); less one in 14 bits or 24 (RFC 9649 2.7, 3.4).
        let lossy = [0x50, 0, 0, 0x9D, 0x01, 0x2A, 0x2C, 0x41, 0x01, 0x82];
        let lossless = [&[0x2F], &(0x12B | 0x200 << 14 | 1_u32 << 28).to_le_bytes()[..], &[0]].concat();
        let extended = [0, 0, 0, 0, 0x2B, 1, 0, 0, 2, 0];
        for (chunk, data) in [(b"VP8 ", &lossy[..]), (b"VP8L", &lossless), (b"VP8X", &extended)] {
            let picture = Picture::parse(&webp_of_one(chunk, data)).unwrap();
            assert_eq!((picture.width, picture.height), (300, 513), "{chunk:?}");
        }
    }

    #[test]
    fn a_webp_whose_first_chunk_is_empty_is_no_picture() {
        assert!(Picture::parse(b"RIFF\x0c\0\0\0WEBPVP8X\0\0\0\0").is_err());
    }

    #[test]
    fn what_is_cut_short_is_no_picture() {
        for whole in [png_of(7, 5), jpeg_of(6), webp_of(), gif_of()] {
            let picture = Picture::parse(&whole).unwrap();
            for length in 0..picture.bytes.len() {
                assert!(Picture::parse(&picture.bytes[..length]).is_err(), "{} at {length}", picture.subtype);
            }
        }
        for other in [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"BM"] {
            assert_eq!(Picture::parse(other), Err(PictureError::NotAPicture));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(which in 0..4_usize, at in any::<prop::sample::Index>(), by in any::<u8>(),
            tail in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut file = [png_of(7, 5), jpeg_of(6), webp_of(), gif_of()][which].clone();
            let at = at.index(file.len());
            file[at] = by;
            file.extend(tail);
            if let Ok(picture) = Picture::parse(&file) {
                prop_assert!(picture.bytes.len() <= file.len() + 36);
            }
        }
    }
}
