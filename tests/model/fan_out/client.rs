//! The client, which checks what it gets as it gets it.

use super::{Frame, Piece, World};

pub(super) const NOT_TOLD: &str = "somebody is not told that they were removed";

/// What the client has been given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) message: u8,
    pub(super) presence: u8,
    /// A frame of which only the head came.
    pub(super) half: Option<Frame>,
    pub(super) closed: bool,
}

impl World {
    /// This world after its client got `pieces`; or which promise that breaks.
    pub(super) fn sent(mut self, pieces: &[Piece]) -> Result<World, &'static str> {
        for piece in pieces {
            if self.client.closed {
                return Err("something is written behind the close frame");
            }
            match (*piece, self.client.half) {
                (Piece::Tail(frame), Some(half)) if frame == half => self.client.half = None,
                (Piece::Tail(_), _) | (_, Some(_)) => return Err("a frame is written into another"),
                (Piece::Whole(frame), None) => self.receive(frame)?,
                (Piece::Head(frame), None) => {
                    self.receive(frame)?;
                    self.client.half = Some(frame);
                }
            }
        }
        Ok(self)
    }

    fn receive(&mut self, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::Presence(seq) if seq <= self.client.presence => return Err("a change of presence is repeated"),
            Frame::Presence(seq) if seq > self.client.presence + 1 => return Err("a change of presence is skipped"),
            Frame::Presence(seq) | Frame::Snapshot(seq) => self.client.presence = seq,
            Frame::Close => self.client.closed = true,
            Frame::Answer | Frame::Ping => {}
            Frame::Message(id) | Frame::RoomMessage(id) | Frame::RoomGone(id) => {
                if id > self.setting.scenario.id_after(self.committed) {
                    return Err("a message is shown before it is stored");
                }
                if id <= self.client.message {
                    return Err("a message is repeated");
                }
                match self.must_get(self.client.message) {
                    Some(Frame::RoomGone(first)) if first < id => return Err(NOT_TOLD),
                    Some(first) if first.id() < Some(id) => return Err("a message is skipped"),
                    _ => {}
                }
                let removed = self.setting.scenario.frames(u8::MAX).find(|frame| matches!(frame, Frame::RoomGone(_)));
                if matches!(frame, Frame::RoomMessage(_)) && removed.is_some_and(|removed| frame.id() > removed.id()) {
                    return Err("a message of a room is shown to somebody who was removed from it");
                }
                self.client.message = id;
            }
        }
        Ok(())
    }

    /// The first event past `id` that the client must get. Of a room it was removed from it may get what came before.
    pub(super) fn must_get(&self, id: u8) -> Option<Frame> {
        let is_member = self.is_member();
        let due = |frame: &Frame| is_member || !matches!(frame, Frame::RoomMessage(_));
        self.setting.scenario.frames_after(id, self.committed).find(due)
    }
}
