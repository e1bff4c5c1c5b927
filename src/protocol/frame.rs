//! Encoded WebSocket frames: the header in front of the JSON.

use bytes::{BufMut as _, BytesMut};

use super::server::ServerFrame;

/// Encodes frames one after the other into one buffer, ready for the socket.
#[derive(Debug, Default)]
pub struct Encoder {
    json: Vec<u8>,
    frames: BytesMut,
}

impl Encoder {
    /// Appends a text frame.
    #[expect(clippy::missing_panics_doc, reason = "it never panics, for the reason given there")]
    pub fn push(&mut self, frame: &ServerFrame<'_>) {
        self.json.clear();
        serde_json::to_writer(&mut self.json, frame)
            .expect("writing to a vector cannot fail, and neither can serializing these fields");
        put_frame(&mut self.frames, FIN_TEXT, &self.json);
    }

    /// Appends a frame that is encoded already.
    pub(crate) fn push_encoded(&mut self, frame: &[u8]) {
        self.frames.extend_from_slice(frame);
    }

    /// Bytes encoded so far.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Takes what was encoded, leaving the encoder empty.
    #[must_use]
    pub fn take(&mut self) -> BytesMut {
        self.frames.split()
    }
}

/// Encodes one frame.
pub(crate) fn encode(frame: &ServerFrame<'_>) -> bytes::Bytes {
    let mut encoder = Encoder::default();
    encoder.push(frame);
    encoder.take().freeze()
}

/// First byte of an unfragmented text frame (RFC 6455 5.2).
pub(crate) const FIN_TEXT: u8 = 0x81;
/// First byte of an unfragmented binary frame. The contract has none.
#[cfg(feature = "echo")]
pub(crate) const FIN_BINARY: u8 = 0x82;

/// Appends `payload` as one unmasked frame (RFC 6455 5.2; a server does not mask, 5.1).
pub(crate) fn put_frame(out: &mut BytesMut, first: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    out.put_u8(first);
    // The length in the fewest bytes that can hold it: 7 bits, or 126 and 16 bits, or 127 and 64 bits.
    match payload.len() {
        len @ 0..=125 => out.put_u8(u8::try_from(len).expect("at most 125")),
        len @ 126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(u16::try_from(len).expect("at most 65,535"));
        }
        len => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    use super::*;

    #[test]
    fn the_frame_header_is_what_the_library_reads_at_every_length_class() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut out = BytesMut::new();
            put_frame(&mut out, FIN_TEXT, &vec![b'x'; len]);
            let mut cursor = std::io::Cursor::new(&out[..]);
            let (header, payload_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!(payload_len, len as u64);
            assert_eq!(u64::try_from(out.len()).unwrap(), cursor.position() + payload_len);
            assert!(header.is_final && header.mask.is_none() && !header.rsv1 && !header.rsv2 && !header.rsv3);
        }
    }
}
