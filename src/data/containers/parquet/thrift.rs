//! Thrift's compact protocol, in which parquet files describe themselves: values are read into a
//! tree, and fields are found by their number.

use crate::data::numbers::damaged;
use crate::error::Result;

/// Maximum depth of structures.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Double,
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Struct(Vec<(i16, Self)>),
}

impl Value {
    /// A field of a structure.
    pub fn field(&self, number: i16) -> Option<&Self> {
        match self {
            Self::Struct(fields) => fields.iter().find(|(n, _)| *n == number).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The integer of a field.
    pub fn integer(&self, number: i16) -> Option<i64> {
        match self.field(number)? {
            Self::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// The text of a field.
    pub fn text(&self, number: i16) -> Option<String> {
        match self.field(number)? {
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// The elements of a field. None if the field is missing.
    pub fn list(&self, number: i16) -> &[Self] {
        match self.field(number) {
            Some(Self::List(list)) => list,
            _ => &[],
        }
    }
}

/// Reads values from bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).ok_or_else(|| damaged("its description is cut off"))?;
        self.at += 1;
        Ok(*byte)
    }

    /// An unsigned number in groups of seven bits.
    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged("a number of its description is too long"))
    }

    /// A signed number, whose sign is the lowest bit.
    fn signed(&mut self) -> Result<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A structure.
    pub fn structure(&mut self) -> Result<Value> {
        self.fields(0)
    }

    fn fields(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(damaged("its description is nested too deeply"));
        }
        let (mut fields, mut number) = (Vec::new(), 0_i16);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Value::Struct(fields));
            }
            number = match head >> 4 {
                0 => self.signed()? as i16,
                delta => number.wrapping_add(i16::from(delta)),
            };
            let value = match head & 15 {
                1 => Value::Bool(true),
                2 => Value::Bool(false),
                kind => self.value(kind, depth + 1)?,
            };
            fields.push((number, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value> {
        Ok(match kind {
            // In lists, booleans are bytes.
            1 | 2 => Value::Bool(self.byte()? == 1),
            3 => Value::Integer(i64::from(self.byte()? as i8)),
            4..=6 => Value::Integer(self.signed()?),
            7 => {
                for _ in 0..8 {
                    self.byte()?;
                }
                Value::Double
            }
            8 => {
                let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
                let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or_else(|| damaged("its description is cut off"))?;
                let bytes = self.bytes[self.at..end].to_vec();
                self.at = end;
                Value::Bytes(bytes)
            }
            9 | 10 => {
                let head = self.byte()?;
                let len = match head >> 4 {
                    15 => self.number()?,
                    len => u64::from(len),
                };
                if depth > MAX_DEPTH {
                    return Err(damaged("its description is nested too deeply"));
                }
                // The list grows with what is read. An element takes at least a byte.
                let mut list = Vec::new();
                for _ in 0..len {
                    list.push(self.value(head & 15, depth + 1)?);
                }
                Value::List(list)
            }
            12 => self.fields(depth)?,
            _ => return Err(damaged("its description has an unknown type")),
        })
    }
}
