"""Operations on functions and devices of this host, each after the claim on it was checked."""

from typing import Any

from vferry.host import api, forwarding
from vferry.host.handlers.parts import Parts, Work
from vferry.host.mediated import set_mdev
from vferry.host.sriov import vf_address, vf_addresses


def work(parts: Parts, operation: api.Operation[Any], session: api.Session | None) -> Work | None:
    """What carries such an operation out; None for one of another kind."""
    check = parts.claims.check
    match operation:
        case api.SetVf(pf=pf, index=index, only_at=wanted):
            if wanted is not None and wanted != vf_addresses(parts.root, pf).get(index):
                check(session, vf=wanted)
                return lambda: api.Done(changed=False)
            check(session, vf=vf_address(parts.root, pf, index))
            return lambda: _set_vf(parts, operation)
        case api.HideMac(pf=pf, index=index, mac=mac, hidden=hidden):
            check(session, vf=vf_address(parts.root, pf, index))
            change = parts.hiding.hide if hidden else parts.hiding.show
            return lambda: change(pf, index, mac)
        case api.SetForwarding(pf=pf, mac=mac, present=present, arriving=guest):
            check(session)
            if present and guest:
                return lambda: parts.arriving.expect(guest, pf, mac)
            return lambda: parts.arriving.set(pf, mac, present=present)
        case api.MoveFilter(pf=pf, index=index, other=other):
            check(session, vf=vf_address(parts.root, pf, index))
            if other is not None:
                check(session, vf=vf_address(parts.root, other.pf, other.index))
            return lambda: parts.with_links(lambda links: forwarding.move_filter(links, parts.root, operation))
        case api.Unpark(pf=pf, index=index, mac=mac):
            check(session, vf=vf_address(parts.root, pf, index))
            return lambda: parts.with_links(lambda links: forwarding.unpark(links, pf, index, mac))
        case api.SetMdev(guest=guest):
            check(session, guest=guest)
            return lambda: set_mdev(parts.hypervisor, parts.root, operation)
    return None


def _set_vf(parts: Parts, wanted: api.SetVf) -> api.Done:
    parts.hiding.forget(wanted.pf, wanted.index)
    done = parts.arriving.set_vf(wanted.pf, wanted.index, wanted.settings, wanted.arriving)
    if wanted.settings.mac and not wanted.arriving:
        parts.ports.keep_mac(wanted.pf, wanted.index, wanted.settings.mac)
    return done
