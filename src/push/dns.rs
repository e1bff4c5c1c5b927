//! The one DNS question that is needed: the addresses of a name, as one message and its answer (RFC 1035 4).
//!
//! A stranger may have sent an answer: every length is checked, a compressed name may only point back, and records and
//! aliases are bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::push::{DNS_ALIASES_MAX, DNS_RECORDS_MAX};

const HEADER_BYTES: usize = 12;
/// Flags of a question: recursion is desired.
const QUESTION_FLAGS: u16 = 0x0100;
const CLASS_INTERNET: u16 = 1;
const TYPE_ALIAS: u16 = 5;
/// Marks a pointer in place of a label's length: the other fourteen bits are a place (RFC 1035 4.1.4).
const POINTER: u8 = 0xc0;
const NAME_MAX_BYTES: usize = 255;

/// The kind of addresses in a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Family {
    V4 = 1,
    V6 = 28,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses; empty if the name does not exist, or has none of this kind.
    Addresses(Vec<IpAddr>),
    /// It was cut: ask again over TCP (RFC 7766 5).
    Truncated,
    /// The server could not find out.
    Failed,
}

/// Writes the question for the addresses of `name`, which has the letters of a host.
pub(super) fn question(id: u16, name: &str, family: Family) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    for field in [id, QUESTION_FLAGS, 1, 0, 0, 0] {
        message.extend(field.to_be_bytes());
    }
    for label in name.split('.') {
        // A host's label has at most 63 bytes.
        message.push(label.len().to_le_bytes()[0]);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((family as u16).to_be_bytes());
    message.extend(CLASS_INTERNET.to_be_bytes());
    message
}

/// Reads the answer to [`question`]; `None` if it answers another question, or is broken.
pub(super) fn read_answer(message: &[u8], id: u16, name: &str, family: Family) -> Option<Answer> {
    let mut reader = Reader { message, at: 0 };
    let (answers_id, flags) = (reader.u16()?, reader.u16()?);
    let (questions, records) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    let is_answer = flags & 0x8000 != 0;
    if answers_id != id || !is_answer || questions != 1 || reader.name()? != name {
        return None;
    }
    if (reader.u16()?, reader.u16()?) != (family as u16, CLASS_INTERNET) {
        return None;
    }
    let (truncated, code) = (flags & 0x0200 != 0, flags & 0x000f);
    match code {
        _ if truncated => Some(Answer::Truncated),
        // 3: there is no such name.
        3 => Some(Answer::Addresses(Vec::new())),
        0 => Some(Answer::Addresses(follow(name, &reader.records(records, family)?))),
        _ => Some(Answer::Failed),
    }
}

/// The addresses of `name` or of what it is an alias of.
fn follow(name: &str, records: &[Record]) -> Vec<IpAddr> {
    let mut name = name;
    for _ in 0..DNS_ALIASES_MAX {
        let own = records.iter().filter(|record| record.name == name);
        let alias = own.clone().find_map(|record| match &record.data {
            Data::Alias(target) => Some(target),
            Data::Address(_) => None,
        });
        let Some(target) = alias else {
            let address = |record: &Record| if let Data::Address(ip) = record.data { Some(ip) } else { None };
            return own.filter_map(address).collect();
        };
        name = target;
    }
    Vec::new()
}

struct Record {
    name: String,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name in lower case, its labels joined by dots.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut end) = (String::new(), None);
        loop {
            let start = self.at;
            let length = self.u8()?;
            match length & POINTER {
                0 if length == 0 => break,
                0 => {
                    let label = self.take(length.into())?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                    if name.len() > NAME_MAX_BYTES {
                        return None;
                    }
                }
                POINTER => {
                    let place = usize::from(u16::from_be_bytes([length & !POINTER, self.u8()?]));
                    // Always further back than the pointer itself, so that it ends.
                    if place >= start {
                        return None;
                    }
                    end = end.or(Some(self.at));
                    self.at = place;
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(self.at);
        Some(name)
    }

    fn records(&mut self, count: u16, family: Family) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        for _ in 0..usize::from(count).min(DNS_RECORDS_MAX) {
            let name = self.name()?;
            let (kind, class) = (self.u16()?, self.u16()?);
            self.take(4)?;
            let length = usize::from(self.u16()?);
            let (start, data) = (self.at, self.take(length)?);
            let data = match (kind, class) {
                (TYPE_ALIAS, CLASS_INTERNET) => {
                    let mut inside = Reader { message: self.message, at: start };
                    Data::Alias(inside.name()?)
                }
                (kind, CLASS_INTERNET) if kind == family as u16 => Data::Address(match family {
                    Family::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
                    Family::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
                }),
                _ => continue,
            };
            records.push(Record { name, data });
        }
        Some(records)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "web.push.apple.com";
    /// Where the question's name begins, as a pointer.
    const POINTER_TO_NAME: [u8; 2] = [POINTER, 12];

    /// The answer of a server that has `addresses` for what it was asked.
    pub(in super::super) fn answer_with(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        let kind = u16::from_be_bytes(question[question.len() - 4..question.len() - 2].try_into().unwrap());
        let mut count = 0;
        for address in addresses {
            let bytes = match address {
                IpAddr::V4(v4) if kind == Family::V4 as u16 => v4.octets().to_vec(),
                IpAddr::V6(v6) if kind == Family::V6 as u16 => v6.octets().to_vec(),
                _ => continue,
            };
            record(&mut message, &POINTER_TO_NAME, kind, &bytes);
            count += 1;
        }
        message[7] = count;
        message
    }

    fn record(message: &mut Vec<u8>, name: &[u8], kind: u16, data: &[u8]) {
        message.extend(name);
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_INTERNET.to_be_bytes());
        message.extend([0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }

    fn asked() -> Vec<u8> {
        question(7, NAME, Family::V4)
    }

    fn read(message: &[u8]) -> Option<Answer> {
        read_answer(message, 7, NAME, Family::V4)
    }

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|address| address.parse().unwrap()).collect())
    }

    #[test]
    fn the_addresses_of_the_name_are_read() {
        let both = ["17.1.2.3".parse().unwrap(), "2620::1".parse().unwrap(), "17.1.2.4".parse().unwrap()];
        assert_eq!(read(&answer_with(&asked(), &both)), Some(addresses(&["17.1.2.3", "17.1.2.4"])));
        let question = question(7, NAME, Family::V6);
        let answer = read_answer(&answer_with(&question, &both), 7, NAME, Family::V6);
        assert_eq!(answer, Some(addresses(&["2620::1"])));
    }

    #[test]
    fn an_alias_is_followed_whatever_the_order_and_other_names_are_not() {
        let mut message = asked();
        message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        record(&mut message, b"\x01b\x00", 1, &[9, 9, 9, 9]);
        record(&mut message, b"\x05other\x00", 1, &[6, 6, 6, 6]);
        record(&mut message, b"\x01a\x00", TYPE_ALIAS, b"\x01B\x00");
        record(&mut message, &POINTER_TO_NAME, TYPE_ALIAS, b"\x01a\x00");
        message[7] = 4;
        assert_eq!(read(&message), Some(addresses(&["9.9.9.9"])));
    }

    #[test]
    fn a_record_of_another_kind_is_passed_over() {
        let mut message = answer_with(&asked(), &["17.1.2.3".parse().unwrap()]);
        // The signature that a server may add (RFC 4034 3).
        record(&mut message, &POINTER_TO_NAME, 46, b"signature");
        message[7] = 2;
        assert_eq!(read(&message), Some(addresses(&["17.1.2.3"])));
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let mut message = asked();
        message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        record(&mut message, &POINTER_TO_NAME, TYPE_ALIAS, &POINTER_TO_NAME);
        message[7] = 1;
        assert_eq!(read(&message), Some(addresses(&[])));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let answer = answer_with(&asked(), &["17.1.2.3".parse().unwrap()]);
        assert_eq!(read_answer(&answer, 8, NAME, Family::V4), None, "another id");
        assert_eq!(read_answer(&answer, 7, "web.push.apple.org", Family::V4), None, "another name");
        assert_eq!(read_answer(&answer, 7, NAME, Family::V6), None, "another type");
        assert_eq!(read(&asked()), None, "the question itself");
    }

    #[test]
    fn what_a_server_cannot_answer_is_told_from_what_is_not_there() {
        let with_flags = |flags: u16| {
            let mut message = asked();
            message[2..4].copy_from_slice(&flags.to_be_bytes());
            read(&message)
        };
        assert_eq!(with_flags(0x8183), Some(addresses(&[])), "no such name");
        assert_eq!(with_flags(0x8182), Some(Answer::Failed));
        assert_eq!(with_flags(0x8185), Some(Answer::Failed), "refused");
        assert_eq!(with_flags(0x8380), Some(Answer::Truncated));
    }

    #[test]
    fn a_name_that_points_at_itself_or_ahead_is_broken() {
        for pointer in [[POINTER, 36], [POINTER, 200], [0x80, 1]] {
            let mut message = asked();
            message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
            assert_eq!(message.len(), 36);
            record(&mut message, &pointer, 1, &[9, 9, 9, 9]);
            message[7] = 1;
            assert_eq!(read(&message), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), count in any::<u8>()) {
            let mut message = asked();
            message[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
            message[7] = count;
            message.extend(tail);
            let _ = read(&message);
            let _ = read(&message[..message.len() / 2]);
        }
    }
}
