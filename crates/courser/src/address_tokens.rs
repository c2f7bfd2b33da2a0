//! Tokens by which a client proves its address without a round trip (RFC 9000 section 8.1.3).
//!
//! A server that asks for a proof (Retry) sends tokens in NEW_TOKEN frames for later connections. Courser keeps them by the
//! server's name and port and gives each to one connection. They say nothing about who the client is, but a server
//! recognises the token that it gave: identities that must not be linked need stores of their own.

use std::collections::VecDeque;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::wait::lock;

/// Servers of which tokens are kept, at most; the one whose token is oldest makes room.
const SERVERS_MAX: usize = 256;
/// Tokens of one server, at most; the oldest makes room.
const TOKENS_MAX: usize = 2;
/// Longer tokens are not kept: they would crowd the first packet.
const TOKEN_LEN_MAX: usize = 512;
/// A file longer than this was not written by a store.
const FILE_LEN_MAX: u64 = (SERVERS_MAX * TOKENS_MAX * (2 * TOKEN_LEN_MAX + 300)) as u64;
/// First line of a file.
const HEADER: &str = "courser address tokens 1";

/// The tokens of one server.
struct Shelf {
    /// Name and port, as the application asked for them.
    server: String,
    tokens: VecDeque<Box<[u8]>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has a token passes for its client's address.
        f.debug_struct("Shelf").field("server", &self.server).field("tokens", &self.tokens.len()).finish()
    }
}

/// Address tokens of servers, kept for later connections; clones share them.
///
/// [`ClientOptions::tokens`](crate::ClientOptions::tokens) has one in memory. To keep them over restarts:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// # let folder = std::env::temp_dir().join(format!("courser-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let file = folder.join("tokens");
/// let tokens = courser::TokenStore::open(&file)?; // empty when there is no such file
/// // … ClientOptions { tokens: tokens.clone(), .. } …
/// tokens.save(&file)?;
/// # std::fs::remove_dir_all(&folder)
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct TokenStore {
    /// In the order of their newest tokens.
    shelves: Arc<Mutex<VecDeque<Shelf>>>,
}

/// Where the tokens of one server are.
#[derive(Clone, Debug)]
pub(crate) struct ServerTokens {
    store: TokenStore,
    server: String,
}

impl TokenStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what [`save`](Self::save) wrote; empty when there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one of a store ([`io::ErrorKind::InvalidData`]).
    pub fn open(file: &Path) -> io::Result<Self> {
        let size = match std::fs::metadata(file) {
            Ok(facts) => facts.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        if size > FILE_LEN_MAX {
            return Err(damaged(file, 0));
        }
        let text = std::fs::read_to_string(file)?;
        let mut lines = text.lines();
        if lines.next() != Some(HEADER) {
            return Err(damaged(file, 1));
        }
        let store = Self::default();
        for (number, line) in lines.enumerate() {
            let (token, server) = line.split_once(' ').ok_or_else(|| damaged(file, number + 2))?;
            store.put(server, &unhex(token).ok_or_else(|| damaged(file, number + 2))?);
        }
        Ok(store)
    }

    /// Writes the tokens into a file that only its owner may read; what was there is replaced when all is written. Tokens
    /// that a later connection of this process uses should not be used again from the file: save when the process ends.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let mut text = format!("{HEADER}\n");
        for shelf in lock(&self.shelves).iter() {
            for token in &shelf.tokens {
                token.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
                text.push_str(&format!(" {}\n", shelf.server));
            }
        }
        let beside = file.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = options.open(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        drop(out);
        std::fs::rename(&beside, file)
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.shelves).iter().map(|shelf| shelf.tokens.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all.
    pub fn clear(&self) {
        lock(&self.shelves).clear();
    }

    /// Those of the server with this name, asked for at this port.
    pub(crate) fn of(&self, name: &str, port: u16) -> ServerTokens {
        ServerTokens { store: self.clone(), server: format!("{name}:{port}") }
    }

    fn put(&self, server: &str, token: &[u8]) {
        if token.len() > TOKEN_LEN_MAX || server.contains(['\r', '\n']) {
            return;
        }
        let mut shelves = lock(&self.shelves);
        let at = shelves.iter().position(|shelf| shelf.server == server);
        let mut shelf = at
            .and_then(|at| shelves.remove(at))
            .unwrap_or_else(|| Shelf { server: server.to_owned(), tokens: VecDeque::new() });
        // The frame may have come twice.
        if !shelf.tokens.iter().any(|kept| **kept == *token) {
            if shelf.tokens.len() == TOKENS_MAX {
                shelf.tokens.pop_front();
            }
            shelf.tokens.push_back(token.into());
        }
        if shelves.len() == SERVERS_MAX {
            shelves.pop_front();
        }
        shelves.push_back(shelf);
    }
}

impl ServerTokens {
    /// The newest token, for one connection; nobody gets it again. Empty when there is none.
    pub(crate) fn take(&self) -> Box<[u8]> {
        let mut shelves = lock(&self.store.shelves);
        let Some(at) = shelves.iter().position(|shelf| shelf.server == self.server) else { return Box::default() };
        //= rfc9000#8.1.3-9
        let token = shelves[at].tokens.pop_back().unwrap_or_default();
        if shelves[at].tokens.is_empty() {
            shelves.remove(at);
        }
        token
    }

    /// Keeps a token that the server gave.
    pub(crate) fn put(&self, token: &[u8]) {
        self.store.put(&self.server, token);
    }
}

fn damaged(file: &Path, line: usize) -> io::Error {
    let text = format!("{}: line {line} is not of a file of address tokens; delete it to begin anew", file.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_given_once_the_newest_first() {
        let store = TokenStore::new();
        let (ours, other) = (store.of("a.example", 443), store.of("a.example", 444));
        for token in [b"1", b"2", b"3", b"3"] {
            ours.put(token);
        }
        //= rfc9000#8.1.3-7, rfc9000#8.1.3-9 type=test
        assert_eq!(*other.take(), *b"", "tokens of another port");
        assert_eq!(*store.of("b.example", 443).take(), *b"", "tokens of another name");
        let taken: Vec<Box<[u8]>> = (0..3).map(|_| ours.take()).collect();
        assert_eq!(taken, [Box::from(*b"3"), Box::from(*b"2"), Box::default()], "two are kept, each is given once");
        assert!(store.is_empty());
    }

    #[test]
    fn a_store_has_room_for_so_many_servers_and_the_oldest_go_first() {
        let store = TokenStore::new();
        (0..1000_u16).for_each(|port| store.of("x", port).put(b"t"));
        assert_eq!(store.len(), SERVERS_MAX);
        assert!(store.of("x", 743).take().is_empty() && !store.of("x", 744).take().is_empty());
        store.of("x", 1).put(&[0; TOKEN_LEN_MAX + 1]);
        assert!(store.of("x", 1).take().is_empty(), "too long to be kept");
        store.clear();
        assert!(store.is_empty());
    }

    #[test]
    fn a_file_holds_what_was_kept_and_only_its_owner_reads_it() {
        let folder = std::env::temp_dir().join(format!("courser-tokens-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("tokens");
        assert!(TokenStore::open(&file).unwrap().is_empty(), "there is none yet");
        let store = TokenStore::new();
        store.of("a.example", 1).put(&[0, 0xab, 255]);
        store.of("[::1]", 2).put(b"x");
        store.save(&file).unwrap();
        store.save(&file).unwrap();
        let again = TokenStore::open(&file).unwrap();
        assert_eq!((again.len(), again.of("a.example", 1).take()), (2, Box::from([0, 0xab, 255])));
        assert_eq!(*again.of("[::1]", 2).take(), *b"x");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        for text in
            ["", "something else\n", "courser address tokens 1\nabc a:1\n", "courser address tokens 1\nzz a:1\n"]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(TokenStore::open(&file).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
