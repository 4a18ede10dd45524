//! As much of CQL's native protocol, version 4, as it takes to ask a node whether it is ready: unencrypted, one request at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Name and password of the superuser that Cassandra creates.
pub(crate) const SUPERUSER: &str = "cassandra";

const TIMEOUT: Duration = Duration::from_secs(5);
const HEADER: usize = 9;
/// No answer of a system table comes near; more is not CQL.
const LONGEST_BODY: usize = 1 << 20;

mod opcode {
    pub(super) const STARTUP: u8 = 0x01;
    pub(super) const READY: u8 = 0x02;
    pub(super) const AUTHENTICATE: u8 = 0x03;
    pub(super) const OPTIONS: u8 = 0x05;
    pub(super) const SUPPORTED: u8 = 0x06;
    pub(super) const QUERY: u8 = 0x07;
    pub(super) const RESULT: u8 = 0x08;
    pub(super) const AUTH_RESPONSE: u8 = 0x0F;
    pub(super) const AUTH_SUCCESS: u8 = 0x10;
}

/// How many replicas are to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Consistency {
    One = 0x01,
    All = 0x05,
}

/// A row's columns; `None` is null.
pub(crate) type Row = Vec<Option<Vec<u8>>>;

/// Whether a CQL server answers at `address`.
pub(crate) fn answers(address: SocketAddr) -> bool {
    connect(address)
        .and_then(|mut stream| call(&mut stream, opcode::OPTIONS, &[]))
        .is_ok_and(|(answer, _)| answer == opcode::SUPPORTED)
}

/// A connection on which queries may be sent.
#[derive(Debug)]
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Connects, and logs in as the superuser when asked to.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let mut stream = connect(address)?;
        let mut startup = vec![0, 1];
        for text in ["CQL_VERSION", "3.0.0"] {
            startup.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
            startup.extend(text.as_bytes());
        }
        match call(&mut stream, opcode::STARTUP, &startup)?.0 {
            opcode::READY => {}
            opcode::AUTHENTICATE => {
                let token = format!("\0{SUPERUSER}\0{SUPERUSER}");
                let (answer, _) = call(&mut stream, opcode::AUTH_RESPONSE, &long_bytes(token.as_bytes()))?;
                expect(answer, opcode::AUTH_SUCCESS)?;
            }
            other => expect(other, opcode::READY)?,
        }
        Ok(Self(stream))
    }

    /// Runs a statement and returns its rows, if any.
    pub(crate) fn query(&mut self, statement: &str, consistency: Consistency) -> io::Result<Vec<Row>> {
        let mut body = long_bytes(statement.as_bytes());
        body.extend((consistency as u16).to_be_bytes());
        body.push(0);
        let (answer, body) = call(&mut self.0, opcode::QUERY, &body)?;
        expect(answer, opcode::RESULT)?;
        rows(&mut Reader(&body))
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Sends a request and returns the answer's opcode and body, without warnings.
fn call(stream: &mut TcpStream, opcode: u8, body: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut frame = vec![0x04, 0, 0, 0, opcode];
    frame.extend(long_bytes(body));
    stream.write_all(&frame)?;

    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let [version, flags, _, _, answer, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if version != 0x84 || length > LONGEST_BODY {
        return Err(invalid("this is not CQL version 4"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let mut reader = Reader(&body);
    if flags & 0x08 != 0 {
        for _ in 0..reader.short()? {
            reader.string()?;
        }
    }
    if answer == 0 {
        let code = reader.int()?;
        return Err(io::Error::other(format!("error {code:#06x}: {}", reader.string()?)));
    }
    Ok((answer, reader.0.to_vec()))
}

fn rows(body: &mut Reader<'_>) -> io::Result<Vec<Row>> {
    const ROWS: i32 = 2;
    const GLOBAL_TABLE: i32 = 1;
    if body.int()? != ROWS {
        return Ok(Vec::new());
    }
    let flags = body.int()?;
    let columns = body.int()?;
    let table = |body: &mut Reader<'_>| body.string().and_then(|_| body.string()).map(drop);
    if flags & GLOBAL_TABLE != 0 {
        table(body)?;
    }
    for _ in 0..columns {
        if flags & GLOBAL_TABLE == 0 {
            table(body)?;
        }
        body.string()?;
        body.column_type()?;
    }
    let rows = body.int()?;
    (0..rows).map(|_| (0..columns).map(|_| body.bytes()).collect()).collect()
}

/// The protocol's `[long string]`, and its `[bytes]`: four bytes of length first.
fn long_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut all = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    all.extend(bytes);
    all
}

fn expect(answer: u8, wanted: u8) -> io::Result<()> {
    if answer == wanted { Ok(()) } else { Err(invalid(&format!("unexpected answer {answer:#04x}"))) }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is left of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| invalid("short frame"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> io::Result<i32> {
        self.take(4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn short(&mut self) -> io::Result<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn string(&mut self) -> io::Result<String> {
        let length = self.short()?;
        self.take(length.into()).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        // A negative length is null.
        match usize::try_from(self.int()?) {
            Ok(length) => self.take(length).map(|bytes| Some(bytes.to_vec())),
            Err(_) => Ok(None),
        }
    }

    /// Skips a column's type: plain ones, and lists and sets of plain ones.
    fn column_type(&mut self) -> io::Result<()> {
        match self.short()? {
            0x20 | 0x22 => self.column_type(),
            0x01..=0x1F => Ok(()),
            other => Err(invalid(&format!("column type {other:#04x}"))),
        }
    }
}
