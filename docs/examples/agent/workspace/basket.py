"""Prices in cents."""


def total(prices, discount_percent=0):
    """The sum of the prices, less the discount, rounded down to a cent."""
    amount = sum(prices)
    return amount + amount * discount_percent // 100


def free_shipping(amount):
    """From fifty on, nobody pays for the parcel."""
    return amount > 5000
