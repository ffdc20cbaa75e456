//! Messages between running nodes: what is published arrives, verified and in time order.

mod support;

use sinew::io::node::Layout;
use support::{Pair, Sample, until};

#[test]
fn a_signed_message_reaches_its_subscriber_in_every_layout() {
    for layout in [Layout::Fused, Layout::Split, Layout::Pipelined] {
        let (robot, controller) = Pair::on_loopback().builders(&format!("reach-{layout}"));
        let (mut robot, mut controller) = (robot.layout(layout), controller.layout(layout));
        let mut setpoint = robot.latest::<Sample>("setpoint").unwrap();
        let mut publisher = controller.publisher::<Sample>("setpoint").unwrap();
        let robot = robot.start().unwrap();
        let controller = controller.start().unwrap();
        let mut number = 0;
        let received = until("a set-point arrives", || {
            number += 1;
            publisher.publish(&Sample::new(number)).unwrap();
            setpoint.read().map(|newest| *newest.value)
        });
        assert_eq!(received, Sample::new(received.number));
        controller.stop().unwrap();
        robot.stop().unwrap();
    }
}
