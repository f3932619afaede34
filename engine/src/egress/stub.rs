//! A stand-in for the envelope: sender and recipients, one a line.

#[derive(Clone, Copy, Debug)]
pub struct EnvelopeView<'a>(&'a str);

impl<'a> EnvelopeView<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(bytes).map(Self)
    }
    pub fn sender(&self) -> &'a str {
        self.0.lines().next().unwrap_or("")
    }
    pub fn recipient(&self, index: u16) -> &'a str {
        self.0.lines().nth(usize::from(index) + 1).unwrap_or("")
    }
}
