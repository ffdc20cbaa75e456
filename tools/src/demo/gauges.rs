//! The names under which the demo's processes show their figures on their panels: what one side
//! writes and the other reads.

/// The robot's loop.
pub(super) const CART: &str = "cart";
/// The controller's loop.
pub(super) const PILOT: &str = "pilot";

/// Age of the message that a loop acts upon, in each cycle (both processes).
pub(super) const AGE: &str = "age in use";
/// From sampling a state to acting upon the setpoint that answers it (robot).
pub(super) const ROUND_TRIP: &str = "state to setpoint";

/// The pole's angle from upright, µrad (robot, as all that follow).
pub(super) const ANGLE: &str = "pole.angle_urad";
/// The cart's position, µm.
pub(super) const CART_POSITION: &str = "cart.position_um";
/// The motor's torque, µN·m.
pub(super) const TORQUE: &str = "cart.torque_unm";
/// How often the cart ran into an end stop.
pub(super) const BUMPS: &str = "cart.end_stops_hit";
/// Since when the pole has been upright; 0 while it is not. Instants are ns of CLOCK_MONOTONIC.
pub(super) const UPRIGHT_SINCE: &str = "pole.upright_since_ns";
/// When the first cycle of motion since the last stop began.
pub(super) const MOVING_SINCE: &str = "cart.moving_since_ns";
/// When the setpoint was sent that was read last.
pub(super) const SETPOINT_SENT_AT: &str = "setpoint.sent_at_ns";
/// When the last safe stop had torque off and brake on.
pub(super) const STOPPED_AT: &str = "stop.at_ns";
/// When the cycle that entered the last safe stop was due.
pub(super) const STOP_DUE_AT: &str = "stop.due_at_ns";
/// When the last setpoint before that stop was sent.
pub(super) const STOP_SETPOINT_SENT_AT: &str = "stop.setpoint_sent_at_ns";

/// 1 while the pilot balances, 0 while it swings up or knows nothing (controller).
pub(super) const MODE: &str = "pilot.balances";
/// Messages that the send stage had no room for (both processes).
pub(super) const NOT_SENT: &str = "publisher.full";
