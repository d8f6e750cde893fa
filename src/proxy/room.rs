//! Memory for content while it comes: from the allocator where it is small, a mapping of its own where it is large.
//!
//! A conversation of many megabytes is taken in by one thread and let go by another. mimalloc keeps that as resident until the
//! first thread has time for it, which on an idle box is never; a mapping goes back to the system with its last handle.

use bytes::Bytes;
use memmap2::MmapMut;

/// From so many bytes on it is a mapping.
const LARGE: usize = 4 << 20;

/// Content that is growing.
#[derive(Debug)]
pub(super) enum Room {
    Heap(Vec<u8>),
    Mapped(Mapped),
}

/// The beginning of a mapping.
#[derive(Debug)]
pub(super) struct Mapped {
    memory: MmapMut,
    len: usize,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl Room {
    pub(super) const fn new() -> Self {
        Room::Heap(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Room::Heap(content) => content.len(),
            Room::Mapped(content) => content.len,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn capacity(&self) -> usize {
        match self {
            Room::Heap(content) => content.capacity(),
            Room::Mapped(content) => content.memory.len(),
        }
    }

    /// Adds a chunk. Where there is no room for it, room for so much is made, and for the chunk.
    pub(super) fn add(&mut self, chunk: &[u8], room: usize) {
        let len = self.len() + chunk.len();
        if self.capacity() < len {
            self.grow(room.max(len));
        }
        match self {
            Room::Heap(content) => content.extend_from_slice(chunk),
            Room::Mapped(content) => {
                if let Some(place) = content.memory.get_mut(content.len..len) {
                    place.copy_from_slice(chunk);
                    content.len = len;
                }
            }
        }
    }

    fn grow(&mut self, capacity: usize) {
        // Where the system maps nothing any more, the allocator may still have something.
        let mapped = if capacity >= LARGE { MmapMut::map_anon(capacity).ok() } else { None };
        match (mapped, &mut *self) {
            (Some(memory), _) => {
                let mut room = Room::Mapped(Mapped { memory, len: 0 });
                room.add(self.as_ref(), capacity);
                *self = room;
            }
            (None, Room::Heap(content)) => content.reserve_exact(capacity.saturating_sub(content.len())),
            (None, Room::Mapped(content)) => {
                let mut whole = Vec::with_capacity(capacity);
                whole.extend_from_slice(content.as_ref());
                *self = Room::Heap(whole);
            }
        }
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        match self {
            Room::Heap(content) => content,
            Room::Mapped(content) => content.as_ref(),
        }
    }
}

impl From<Room> for Bytes {
    fn from(room: Room) -> Self {
        match room {
            Room::Heap(content) => content.into(),
            Room::Mapped(content) => Bytes::from_owner(content),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_there_however_it_grows() {
        for rooms in [&[1, 10, 100][..], &[LARGE], &[10, LARGE, 2 * LARGE + 1], &[0, 0, 0]] {
            let (mut room, mut expected) = (Room::new(), Vec::new());
            for (round, wanted) in rooms.iter().enumerate() {
                for chunk in [vec![round as u8; 7], vec![b'x'; 70_000], Vec::new()] {
                    room.add(&chunk, *wanted);
                    expected.extend_from_slice(&chunk);
                    assert!(room.capacity() >= room.len() && room.len() == expected.len());
                }
            }
            assert!(room.as_ref() == expected && !room.is_empty());
            assert_eq!(matches!(room, Room::Mapped(_)), rooms.contains(&LARGE));
            assert!(Bytes::from(room) == expected);
        }
    }

    #[test]
    fn room_is_as_large_as_was_asked_for() {
        for wanted in [5, 1000, LARGE - 1, LARGE, 3 * LARGE] {
            let mut room = Room::new();
            room.add(b"12345", wanted);
            assert_eq!(room.capacity(), wanted);
        }
    }
}
