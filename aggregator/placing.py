"""Which job a device works for: the one that asks for its group, else the main one."""

from sqlalchemy import select

from aggregator import planning
from aggregator.room import Room
from aggregator.store import Device, JobSession, Task


def place(session: JobSession, room: Room, device: Device) -> bool:
    """Put a device where its group belongs, and the session into that job.

    What it was to do for another job is not counted on any more, and its precision there says nothing here: that is
    chosen anew when it introduces itself, or when a round is committed.

    Returns:
        Whether it moved.
    """
    session.enter(device.job)
    job = room.of_group(device.group)
    if job == device.job:
        return False
    planning.miss(session, Task.device == device.id)
    if device.job in room.rooms:
        room.rooms[device.job].uploads.drop(device.id)
    device.job, device.precision, device.reason, device.decision = job, "", "", {}
    session.flush()
    session.enter(job)
    return True


def place_all(room: Room) -> None:
    """Put every device where it belongs: the jobs may have changed since the last start."""
    with room.store.of(None).transaction() as session:
        for device in session.scalars(select(Device)).all():
            place(session, room, device)
