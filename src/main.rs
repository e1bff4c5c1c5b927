//! chinwag: a real-time chat server for small devices.
fn main() {}
