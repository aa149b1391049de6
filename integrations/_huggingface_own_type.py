"""How a callback outlives a Trainer that makes a new object of it."""

from __future__ import annotations

import weakref
from typing import Any


class OwnType(type):
    """Gives every instance a type of its own, which, when called, gives that instance again.

    With ``restore_callback_states_from_checkpoint`` a Trainer puts ``type(callback)(**saved)`` in
    the place of the callback that it was given, and the one the user holds would never hear of
    the training again. So that call must return the very same object.

    >>> class Callback(metaclass=OwnType):
    ...     def __init__(self, number=0): self.number = number
    >>> callback = Callback(number=3)
    >>> type(callback)() is callback, callback.number, type(callback).__name__
    (True, 3, 'Callback')
    >>> isinstance(callback, Callback), Callback() is Callback()
    (True, False)
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """The instance that this type belongs to, or a new one."""
        made = cls.__dict__.get("_instance")
        if made is not None:
            return made()
        instance = super(OwnType, _own(cls)).__call__(*args, **kwargs)
        type(instance)._instance = weakref.ref(instance)
        return instance


def _own(cls: OwnType) -> OwnType:
    about = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return OwnType(cls.__name__, (cls,), {**about, "__reduce__": _reduce})


def _reduce(self: Any) -> tuple[Any, ...]:
    """How to copy and pickle an instance: its own type cannot be found by name."""
    return _bare, (type(self).__base__,), self.__dict__


def _bare(cls: OwnType) -> Any:
    own: Any = _own(cls)
    instance = own.__new__(own)
    own._instance = weakref.ref(instance)
    return instance
