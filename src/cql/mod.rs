//! What the text of a statement says: its pieces, what it is called and about, and how it reads without its values.

mod lexer;
mod literals;
mod subject;

pub(crate) use self::{
    lexer::{Token, tokens},
    literals::{truncate, without_literals},
    subject::{OTHER, Subject, members, subject},
};
