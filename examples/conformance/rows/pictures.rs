//! Pictures: what is one, who sees it, and what of it is kept.

use serde_json::{Value, json};

use crate::suite::check::{Check, Failure, expect, int, like, one};
use crate::suite::http::{Answer, Call};
use crate::suite::world::{Person, World};
use crate::suite::{Row, table};

/// One pixel, by GIF's and WebP's shortest ways.
const GIF: &str = "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b";
const WEBP: &str = "524946461a000000574542505650384c0d0000002f0000001007101111888 8fe0700";
/// The limits, in bytes and in pixels a side.
const MAX_BYTES: usize = 512 << 10;
const MAX_SIDE: u32 = 4_096;
/// What no reader should find in a picture.
const SECRET: &[u8] = b"48.8584 north";

pub(crate) const ROWS: &[Row] = table! {
    "image", "POST /images is 201 with id, type, width and height, by the picture's own first bytes" => image;
    "image-type", "what is no picture is 415 unsupported_media_type" => image_type;
    "image-bytes", "too many bytes are 413 payload_too_large" => image_bytes;
    "image-pixels", "too many pixels are 413 payload_too_large" => image_pixels;
    "image-message", "a message names a picture, with words for it or without any text" => image_message;
    "image-once", "a picture is named once; another time it is not_found" => image_once;
    "image-foreign", "another's picture is not_found" => image_foreign;
    "image-get", "GET /images/ID is the picture, with its type and headers that make it harmless" => image_get;
    "image-hidden", "only to who may read the message, and before it to its owner" => image_hidden;
    "image-removed", "promise 8: not to a removed member" => image_removed;
    "image-deleted", "promise 9: a picture goes with its message" => image_deleted;
    "image-png-text", "the text in a PNG is cut out" => image_png_text;
    "image-jpeg-exif", "EXIF is cut out of a JPEG, and its orientation stays" => image_jpeg_exif;
    "image-webp-exif", "EXIF is cut out of a WebP" => image_webp_exif;
};

async fn upload(w: &World, who: &Person, bytes: Vec<u8>) -> Check<Answer> {
    // What a client calls it is not believed.
    let answer = w.ask(Call::new("POST", "/images").by(who).body("application/octet-stream", bytes)).await?;
    if answer.status == 404 { Err(Failure::NotOffered("no pictures".into())) } else { Ok(answer) }
}

async fn stored(w: &World, who: &Person, bytes: Vec<u8>) -> Check<i64> {
    int(&upload(w, who, bytes).await?.ok(201)?, "id")
}

async fn image(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let kinds = [
        (png(3, 2, &[]), "image/png", 3, 2),
        (jpeg(3, 2, &[]), "image/jpeg", 3, 2),
        (hex(GIF), "image/gif", 1, 1),
        (hex(WEBP), "image/webp", 1, 1),
    ];
    for (bytes, media_type, width, height) in kinds {
        let made = upload(&w, &ada, bytes).await?.ok(201)?;
        int(&made, "id")?;
        like(&made, &json!({"type": media_type, "width": width, "height": height}))?;
    }
    Ok(())
}

async fn image_type(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>";
    for bytes in [svg.as_bytes().to_vec(), Vec::new(), b"\x89PNG\r\n\x1a\n".to_vec(), b"BM and more".to_vec()] {
        upload(&w, &ada, bytes).await?.refused(415, "unsupported_media_type")?;
    }
    Ok(())
}

async fn image_bytes(w: World) -> Check {
    let ada = w.cast("ada").await?;
    stored(&w, &ada, png(1, 1, &[])).await?;
    let large = png(1, 1, &[chunk(*b"IDAT", &vec![0; MAX_BYTES])]);
    let call = Call::new("POST", "/images").by(&ada).body("image/png", large);
    let mut wire = w.wire().await?;
    w.step("POST /images with over 512 KiB".into());
    let _sent = wire.write(&call.bytes(&w.host())).await;
    wire.answer().await?.refused(413, "payload_too_large")
}

async fn image_pixels(w: World) -> Check {
    let ada = w.cast("ada").await?;
    for (width, height) in [(MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)] {
        upload(&w, &ada, png(width, height, &[])).await?.refused(413, "payload_too_large")?;
    }
    stored(&w, &ada, png(MAX_SIDE, 1, &[])).await.map(|_| ())
}

async fn image_message(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let (mut socket, picture) = (w.connect(&ben).await?, stored(&w, &ada, png(3, 2, &[])).await?);
    let id = w.say_with(&ada, &json!({"content": "", "image": picture, "alt": "two red lines"})).await?;
    let expected = json!({"id": id, "content": "", "image": {
        "id": picture, "type": "image/png", "width": 3, "height": 2, "alt": "two red lines"
    }});
    one(&socket.until(id).await?, &expected)?;
    like(&w.message(&ben, 1, id).await?, &expected)?;
    let picture = stored(&w, &ada, png(1, 1, &[])).await?;
    let message = json!({"type": "message", "content": "look", "image": picture});
    let id = w.connect(&ada).await?.store(&message).await?;
    one(&socket.until(id).await?, &json!({"id": id, "content": "look", "image": {"id": picture}})).map(|_| ())
}

async fn image_once(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let picture = stored(&w, &ada, png(1, 1, &[])).await?;
    let body = json!({"content": "look", "image": picture});
    w.say_with(&ada, &body).await?;
    w.post(&ada, "/messages", &body).await?.refused(404, "not_found")
}

async fn image_foreign(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let picture = stored(&w, &ada, png(1, 1, &[])).await?;
    w.post(&ben, "/messages", &json!({"content": "mine", "image": picture})).await?.refused(404, "not_found")
}

async fn image_get(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let bytes = png(3, 2, &[]);
    let picture = stored(&w, &ada, bytes.clone()).await?;
    w.say_with(&ada, &json!({"content": "look", "image": picture})).await?;
    let answer = w.get(&ben, &format!("/images/{picture}")).await?;
    expect(answer.status == 200, "status 200", answer.status)?;
    expect(answer.body == bytes, "the picture", format!("{} bytes", answer.body.len()))?;
    let header = |name| answer.header(name).unwrap_or_default();
    expect(header("content-type") == "image/png", "Content-Type: image/png", header("content-type"))?;
    expect(header("x-content-type-options") == "nosniff", "nosniff", header("x-content-type-options"))?;
    let policy = header("content-security-policy");
    expect(policy == "sandbox; default-src 'none'", "Content-Security-Policy: sandbox; default-src 'none'", policy)?;
    let cache = header("cache-control");
    expect(cache.contains("private") && cache.contains("immutable"), "private, immutable", cache)
}

async fn is_hidden(w: &World, who: &Person, picture: i64) -> Check {
    let call = |id: i64| Call::new("GET", format!("/images/{id}")).by(who);
    w.hidden(call(picture), call(1 << 52)).await
}

async fn is_shown(w: &World, who: &Person, picture: i64) -> Check {
    let answer = w.get(who, &format!("/images/{picture}")).await?;
    expect(answer.status == 200, format!("the picture for {}", who.name), answer.status)
}

async fn image_hidden(w: World) -> Check {
    let (ada, ben, cy) = w.trio().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let picture = stored(&w, &ada, png(1, 1, &[])).await?;
    is_shown(&w, &ada, picture).await?;
    is_hidden(&w, &ben, picture).await?;
    w.say_with(&ada, &json!({"room": room, "content": "look", "image": picture})).await?;
    is_shown(&w, &ben, picture).await?;
    is_hidden(&w, &cy, picture).await?;
    is_hidden(&w, &w.moderator().await?, picture).await
}

async fn image_removed(w: World) -> Check {
    let (ada, ben) = w.pair().await?;
    let room = w.private(&ada, &[&ben]).await?;
    let picture = stored(&w, &ben, png(1, 1, &[])).await?;
    w.say_with(&ben, &json!({"room": room, "content": "mine", "image": picture})).await?;
    w.delete(&ada, &format!("/rooms/{room}/members/{}", ben.name)).await?.ok(204)?;
    is_hidden(&w, &ben, picture).await
}

async fn image_deleted(w: World) -> Check {
    let ada = w.cast("ada").await?;
    let picture = stored(&w, &ada, png(1, 1, &[])).await?;
    let id = w.say_with(&ada, &json!({"content": "oops", "image": picture})).await?;
    w.take_back(&ada, id).await?;
    is_hidden(&w, &ada, picture).await
}

/// What the server makes of a picture.
async fn kept(w: &World, bytes: Vec<u8>) -> Check<Vec<u8>> {
    let ada = w.cast("ada").await?;
    let picture = stored(w, &ada, bytes).await?;
    let answer = w.get(&ada, &format!("/images/{picture}")).await?;
    expect(answer.status == 200, "the picture", &answer)?;
    Ok(answer.body)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn without_secret(bytes: &[u8]) -> Check {
    expect(!has(bytes, SECRET), "no metadata", String::from_utf8_lossy(bytes))
}

async fn image_png_text(w: World) -> Check {
    let text = [b"Comment\0", SECRET].concat();
    let exif = [b"MM\0\x2a", SECRET].concat();
    let bytes = kept(&w, png(1, 1, &[chunk(*b"tEXt", &text), chunk(*b"iTXt", &text), chunk(*b"eXIf", &exif)])).await?;
    without_secret(&bytes)?;
    expect(has(&bytes, b"IDAT"), "the picture itself", Value::from(bytes.len()))
}

async fn image_jpeg_exif(w: World) -> Check {
    // TIFF, little endian: one entry, orientation 6; the secret lies behind it.
    let tiff = hex("49492a000800000001001201030001000000060000000000 0000");
    let exif = [b"Exif\0\0", tiff.as_slice(), SECRET].concat();
    let xmp = [b"http://ns.adobe.com/xap/1.0/\0", SECRET].concat();
    let segments = [segment(0xe1, &exif), segment(0xe1, &xmp), segment(0xed, SECRET)];
    let bytes = kept(&w, jpeg(3, 2, &segments)).await?;
    without_secret(&bytes)?;
    let orientation = [hex("01120003000000010006"), hex("120103000100000006 00")];
    expect(orientation.iter().any(|entry| has(&bytes, entry)), "orientation 6", format!("{bytes:02x?}"))
}

async fn image_webp_exif(w: World) -> Check {
    let still = hex(WEBP).split_off(12);
    // VP8X: with EXIF, one pixel.
    let mut body = hex("56503858 0a000000 08000000 000000 000000");
    body.extend(still);
    body.extend(b"EXIF");
    let length = u32::try_from(SECRET.len()).unwrap_or_default();
    body.extend(length.to_le_bytes());
    body.extend(SECRET);
    body.resize(body.len() + SECRET.len() % 2, 0);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(u32::try_from(body.len() + 4).unwrap_or_default().to_le_bytes());
    bytes.extend(b"WEBP");
    bytes.extend(body);
    without_secret(&kept(&w, bytes).await?)
}

/// The bytes that hexadecimal digits name; spaces are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or_default();
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

/// A grey PNG of this size with `more` chunks in it. Its pixels are stored, not compressed, and only those of a small
/// one.
fn png(width: u32, height: u32, more: &[Vec<u8>]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 0, 0, 0, 0]);
    let row = usize::try_from(width).unwrap_or_default() + 1;
    let rows = vec![0; row * usize::try_from(height).unwrap_or_default()];
    let length = u16::try_from(rows.len()).unwrap_or(u16::MAX);
    let mut pixels = vec![0x78, 0x01, 0x01];
    pixels.extend(length.to_le_bytes());
    pixels.extend((!length).to_le_bytes());
    pixels.extend(&rows);
    // Adler-32 of zeros: the first sum stays 1, the second counts them.
    let count = u32::try_from(rows.len()).unwrap_or_default();
    pixels.extend((((count % 65_521) << 16) | 1).to_be_bytes());
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    bytes.extend(chunk(*b"IHDR", &header));
    bytes.extend(more.iter().flatten());
    bytes.extend(chunk(*b"IDAT", &pixels));
    bytes.extend(chunk(*b"IEND", &[]));
    bytes
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(data.len()).unwrap_or_default().to_be_bytes().to_vec();
    bytes.extend(kind);
    bytes.extend(data);
    let crc = crc32(&bytes[4..]);
    bytes.extend(crc.to_be_bytes());
    bytes
}

/// The checksum of PNG (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    let one = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| one(crc)))
}

/// A JPEG's markers around one byte of a picture, with `more` segments before them.
fn jpeg(width: u16, height: u16, more: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = vec![8];
    frame.extend(height.to_be_bytes());
    frame.extend(width.to_be_bytes());
    frame.extend([1, 1, 0x11, 0]);
    let mut table = vec![0; 17];
    table[1] = 1;
    table.push(0);
    let parts = [
        hex("ffd8"),
        segment(0xe0, &hex("4a46494600010100000100010000")),
        more.concat(),
        segment(0xdb, &[0].into_iter().chain([1; 64]).collect::<Vec<_>>()),
        segment(0xc0, &frame),
        segment(0xc4, &table),
        segment(0xc4, &[&[0x10], &table[1..]].concat()),
        segment(0xda, &[1, 1, 0, 0, 63, 0]),
        hex("3fffd9"),
    ];
    parts.concat()
}

fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff, marker];
    bytes.extend(u16::try_from(data.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(data);
    bytes
}
