//! Messages of protocol buffers: only what the formats written here need.
//!
//! A field of a message is a key (its number and the type of its value) and a value.
//! <https://protobuf.dev/programming-guides/encoding/>

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(pub(crate) Vec<u8>);

impl Message {
    /// The bytes of the message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A number in groups of 7 bits, the lowest first. The top bit of a byte marks that more
    /// follow.
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// The key of a field: its number and the type on the wire.
    fn key(self, field: u64, wire: u64) -> Self {
        self.varint(field << 3 | wire)
    }

    /// Adds an unsigned number.
    #[must_use]
    pub fn number(self, field: u64, value: u64) -> Self {
        self.key(field, 0).varint(value)
    }

    /// Adds a signed number of type `int64`. A negative one takes 10 bytes: its two's complement.
    #[must_use]
    pub fn signed(self, field: u64, value: i64) -> Self {
        self.number(field, value.cast_unsigned())
    }

    /// Adds a number of type `double`.
    #[must_use]
    pub fn double(self, field: u64, value: f64) -> Self {
        let mut message = self.key(field, 1);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }

    /// Adds a number of type `float`.
    #[must_use]
    pub fn float(self, field: u64, value: f32) -> Self {
        let mut message = self.key(field, 5);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.key(field, 2).varint(bytes.len() as u64);
        message.0.extend_from_slice(bytes);
        message
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    /// Adds a message.
    #[must_use]
    pub fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_protocol_buffers() {
        let message = Message::default().number(1, 300).text(2, "ab").float(3, 1.0);
        assert_eq!(message.0, [8, 0xac, 2, 0x12, 2, b'a', b'b', 0x1d, 0, 0, 0x80, 0x3f]);
        let double = Message::default().double(1, 1.0);
        assert_eq!(double.into_bytes(), [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }

    #[test]
    fn a_negative_number_has_ten_bytes() {
        let message = Message::default().signed(1, -1);
        assert_eq!(message.0, [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(Message::default().signed(1, 5), Message::default().number(1, 5));
    }

    #[test]
    fn a_field_number_above_15_has_a_key_of_two_bytes() {
        assert_eq!(Message::default().number(20, 7).0, [0xa0, 1, 7]);
    }

    #[test]
    fn an_inner_message_begins_with_its_length() {
        let inner = Message::default().number(1, 1);
        assert_eq!(Message::default().message(2, &inner).0, [0x12, 2, 8, 1]);
        assert_eq!(Message::default().message(3, &Message::default()).0, [0x1a, 0]);
    }

    /// Lengths of 128 and more take two bytes: a writer with one would be wrong from there on.
    #[test]
    fn long_texts_have_lengths_of_several_bytes() {
        let message = Message::default().text(1, &"a".repeat(200));
        assert_eq!(message.0[..3], [0x0a, 0xc8, 1]);
        assert_eq!(message.0.len(), 203);
    }
}
