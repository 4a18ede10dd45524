//! The stacks that are compared: the one place where each is put together.

mod one_server;
mod usual;

pub use self::{
    one_server::protected,
    usual::{UsualRetry, usual},
};
