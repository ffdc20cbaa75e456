//! Hard-latency robot control: pinned real-time threads, authenticated messages, a time budget on
//! every stage.

pub use sinew_control as control;
pub use sinew_io as io;
pub use sinew_rt as rt;
